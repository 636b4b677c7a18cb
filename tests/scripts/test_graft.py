# SPDX-License-Identifier: GPL-2.0
"""graft.py on a made-up kernel tree and a made-up overlay."""

import os
import subprocess

import pytest

import graft

PATCH = """\
Say one more thing.

--- a/block/core.c
+++ b/block/core.c
@@ -1,2 +1,3 @@
 int one;
+int more;
 int two;
"""


def fill(root, files):
    """Write files given as {path: text}."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def snapshot(root):
    """Return every file's content and time stamp, git's own files apart."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


def contents(root):
    """Return every file's content."""
    return {name: data for name, (data, _) in snapshot(root).items()}


@pytest.fixture(name="kernel")
def make_kernel(tmp_path):
    """A kernel tree of a few files."""
    fill(tmp_path / "kernel", {
        "Kbuild": "obj-y += drivers/\n",
        "MAINTAINERS": "THE REST\nF:\t*\n",
        "scripts/thing": "",
        "block/core.c": "int one;\nint two;\n",
        "drivers/nvdimm/Makefile": "obj-y += core.o\n",
        "rust/kernel/lib.rs": "pub mod alloc;\n",
        "include/linux/nd.h": "#define ND",
    })
    return tmp_path / "kernel"


@pytest.fixture(name="overlay")
def make_overlay(tmp_path):
    """An overlay that copies, appends and keeps things for itself."""
    fill(tmp_path / "overlay", {
        "Makefile": "test:\n",
        "README.md": "ours\n",
        "scripts/tool": "ours\n",
        "tests/boot/test_x.py": "ours\n",
        "tests/kunit/fake.c": "int fake;\n",
        "MAINTAINERS": "OUR DRIVER\nF:\tdrivers/nvdimm/ours/\n",
        "drivers/nvdimm/Makefile": "# SPDX-License-Identifier: GPL-2.0\nobj-m += ours/\n",
        "drivers/nvdimm/ours/main.rs": "// ours\n",
        "rust/kernel/lib.rs": "// SPDX-License-Identifier: GPL-2.0\n\npub mod virtio;\n",
        "include/linux/nd.h": "#define OURS\n",
    })
    return tmp_path / "overlay"


def put(kernel, overlay):
    """Graft."""
    graft.Tree(kernel, overlay).graft()


def test_new_files_are_copied_and_nothing_else(kernel, overlay):
    put(kernel, overlay)
    assert (kernel / "drivers/nvdimm/ours/main.rs").read_text() == "// ours\n"
    assert (kernel / "tests/kunit/fake.c").exists()
    for name in ("Makefile", "README.md", "scripts/tool", "tests/boot"):
        assert not (kernel / name).exists()


def test_fragments_are_appended_between_markers(kernel, overlay):
    put(kernel, overlay)
    assert (kernel / "rust/kernel/lib.rs").read_text() == (
        "pub mod alloc;\n\n"
        "// virtio-pmem-rust: begin\npub mod virtio;\n// virtio-pmem-rust: end\n"
    )
    assert (kernel / "drivers/nvdimm/Makefile").read_text() == (
        "obj-y += core.o\n\n"
        "# virtio-pmem-rust: begin\nobj-m += ours/\n# virtio-pmem-rust: end\n"
    )
    assert "/* virtio-pmem-rust: begin */\n#define OURS\n" in (
        kernel / "include/linux/nd.h").read_text()


def test_build_outputs_stay_out(kernel, overlay):
    fill(overlay, {"drivers/nvdimm/ours/main.o": "", "tests/kunit/target/x": "",
                   "tests/kunit/__pycache__/x": ""})
    put(kernel, overlay)
    assert not (kernel / "drivers/nvdimm/ours/main.o").exists()
    assert sorted(p.name for p in (kernel / "tests/kunit").iterdir()) == ["fake.c"]


def test_ignored_files_of_a_checkout_stay_out(kernel, overlay):
    subprocess.run(["git", "init", "-q", overlay], check=True)
    fill(overlay, {".gitignore": "junk\n", "drivers/nvdimm/ours/junk": "", "rust/new.rs": ""})
    put(kernel, overlay)
    assert not (kernel / "drivers/nvdimm/ours/junk").exists()
    assert (kernel / "rust/new.rs").exists()


def test_second_run_changes_nothing(kernel, overlay):
    fill(overlay, {"patches/1.patch": PATCH})
    put(kernel, overlay)
    before = snapshot(kernel)
    put(kernel, overlay)
    assert snapshot(kernel) == before


def test_changed_file_and_fragment_are_replaced_and_others_keep_their_time(kernel, overlay):
    put(kernel, overlay)
    before = snapshot(kernel)
    fill(overlay, {"rust/kernel/lib.rs": "pub mod other;\n", "tests/kunit/fake.c": "int real;\n"})
    put(kernel, overlay)
    after = snapshot(kernel)
    assert after["rust/kernel/lib.rs"][0] == (
        b"pub mod alloc;\n\n"
        b"// virtio-pmem-rust: begin\npub mod other;\n// virtio-pmem-rust: end\n"
    )
    assert after["tests/kunit/fake.c"][0] == b"int real;\n"
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"rust/kernel/lib.rs", "tests/kunit/fake.c", graft.MANIFEST}


def test_what_leaves_the_overlay_leaves_the_tree(kernel, overlay):
    old = (kernel / "rust/kernel/lib.rs").read_bytes()
    put(kernel, overlay)
    (overlay / "rust/kernel/lib.rs").unlink()
    (overlay / "drivers/nvdimm/ours/main.rs").unlink()
    put(kernel, overlay)
    assert (kernel / "rust/kernel/lib.rs").read_bytes() == old
    assert not (kernel / "drivers/nvdimm/ours").exists()


def test_remove_restores_every_byte(kernel, overlay):
    fill(overlay, {"patches/1.patch": PATCH})
    before = contents(kernel)
    put(kernel, overlay)
    assert contents(kernel) != before
    graft.Tree(kernel, overlay).remove()
    assert contents(kernel) == before
    assert not (kernel / "tests").exists()


def test_hard_links_are_not_written_through(kernel, overlay, tmp_path):
    fill(overlay, {"patches/1.patch": PATCH})
    for name in ("rust/kernel/lib.rs", "block/core.c"):
        os.link(kernel / name, tmp_path / "link")
        old = (tmp_path / "link").read_bytes()
        put(kernel, overlay)
        assert (tmp_path / "link").read_bytes() == old
        (tmp_path / "link").unlink()
        graft.Tree(kernel, overlay).remove()


def test_kernel_update_under_the_graft(kernel, overlay):
    put(kernel, overlay)
    (kernel / "rust/kernel/lib.rs").write_text("pub mod newer;\n")
    put(kernel, overlay)
    assert (kernel / "rust/kernel/lib.rs").read_text().startswith("pub mod newer;\n\n// virtio-")


@pytest.mark.parametrize("patched", [False, True])
def test_lost_manifest(kernel, overlay, patched):
    if patched:
        fill(overlay, {"patches/1.patch": PATCH})
    put(kernel, overlay)
    before = contents(kernel)
    (kernel / graft.MANIFEST).unlink()
    put(kernel, overlay)
    after = contents(kernel)
    del before[graft.MANIFEST], after[graft.MANIFEST]
    assert after == before


def test_interrupted_graft_is_finished(kernel, overlay, monkeypatch):
    def fail(tree, _):
        if tree.path == kernel:  # not the copy on which patches are tried
            raise OSError("disk full")
    monkeypatch.setattr(graft.Tree, "patch", fail)
    with pytest.raises(OSError):
        put(kernel, overlay)
    monkeypatch.undo()
    fill(overlay, {"drivers/nvdimm/ours/main.rs": "// newer\n"})
    put(kernel, overlay)
    assert (kernel / "drivers/nvdimm/ours/main.rs").read_text() == "// newer\n"


def test_change_made_in_the_tree_is_not_lost(kernel, overlay):
    put(kernel, overlay)
    (kernel / "drivers/nvdimm/ours/main.rs").write_text("// better\n")
    for act in (graft.Tree(kernel, overlay).graft, graft.Tree(kernel, overlay).remove):
        with pytest.raises(graft.GraftError, match="main.rs.*changed"):
            act()


def test_a_file_of_unknown_kind_is_not_guessed_at(kernel, overlay):
    fill(kernel, {"rust/data.bin": "x\n"})
    fill(overlay, {"rust/data.bin": "y\n"})
    before = snapshot(kernel)
    with pytest.raises(graft.GraftError, match="rust/data.bin"):
        put(kernel, overlay)
    assert snapshot(kernel) == before


@pytest.mark.parametrize("git", ["none", "kernel", "around"])
def test_patch_is_applied_whosever_work_tree_it_is(kernel, overlay, git):
    if git != "none":
        subprocess.run(["git", "init", "-q", kernel if git == "kernel" else kernel.parent],
                       check=True)
    fill(overlay, {"patches/1.patch": PATCH})
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint more;\nint two;\n"
    assert not list(kernel.rglob("*.orig"))


@pytest.mark.parametrize("git", [False, True])
@pytest.mark.parametrize("text", [
    PATCH.replace("int two", "int three"),
    PATCH.replace("block/core.c", "block/gone.c"),
    "no patch at all\n",
])
def test_patch_that_does_not_apply_stops_with_its_name(kernel, overlay, git, text):
    if git:
        subprocess.run(["git", "init", "-q", kernel.parent], check=True)
    before = snapshot(kernel)
    fill(overlay, {"patches/0001-good.patch": PATCH.replace("block/core.c", "scripts/thing")
                   .replace("-1,2 +1,3", "-0,0 +1").replace(" int one;\n", "")
                   .replace(" int two;\n", ""),
                   "patches/0007-bad.patch": text})
    with pytest.raises(graft.GraftError, match="0007-bad.patch"):
        put(kernel, overlay)
    assert snapshot(kernel) == before


def test_patches_on_the_same_file_build_on_each_other(kernel, overlay):
    more = PATCH.replace("more", "again").replace("int one", "int more")
    fill(overlay, {"patches/1.patch": PATCH, "patches/2.patch": more.replace("-1,2 +1,3",
                                                                             "-2,2 +2,3")})
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == (
        "int one;\nint more;\nint again;\nint two;\n")


def test_without_patch_nothing_is_written(kernel, overlay, monkeypatch, tmp_path):
    fill(overlay, {"patches/1.patch": PATCH})
    before = snapshot(kernel)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(graft.GraftError, match="install the package patch"):
        put(kernel, overlay)
    assert snapshot(kernel) == before


@pytest.mark.parametrize("text", ["{", "[1]", "17"])
def test_note_that_cannot_be_read_is_refused_with_a_remedy(kernel, overlay, text):
    put(kernel, overlay)
    before = contents(kernel)
    (kernel / graft.MANIFEST).write_text(text)
    with pytest.raises(graft.GraftError, match=f"{graft.MANIFEST}: .*delete it"):
        put(kernel, overlay)
    (kernel / graft.MANIFEST).unlink()
    put(kernel, overlay)
    assert contents(kernel) | {graft.MANIFEST: before[graft.MANIFEST]} == before


def test_changed_patch_is_taken_back_and_applied_again(kernel, overlay):
    fill(overlay, {"patches/1.patch": PATCH})
    put(kernel, overlay)
    fill(overlay, {"patches/1.patch": PATCH.replace("more", "less")})
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint less;\nint two;\n"
    (overlay / "patches/1.patch").unlink()
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint two;\n"


def test_patch_on_a_file_that_is_also_appended_to(kernel, overlay):
    fill(overlay, {"patches/1.patch": PATCH.replace("block/core.c", "include/linux/x.h"),
                   "include/linux/x.h": "int ours;\n"})
    fill(kernel, {"include/linux/x.h": "int one;\nint two;\n"})
    put(kernel, overlay)
    before = snapshot(kernel)
    put(kernel, overlay)
    assert snapshot(kernel) == before
    fill(overlay, {"include/linux/x.h": "int changed;\n"})
    put(kernel, overlay)
    text = (kernel / "include/linux/x.h").read_text()
    assert text.startswith("int one;\nint more;\nint two;\n") and "int changed;" in text


def test_tree_that_was_reset_gets_its_patch_again(kernel, overlay):
    old = (kernel / "block/core.c").read_bytes()
    fill(overlay, {"patches/1.patch": PATCH})
    put(kernel, overlay)
    (kernel / "block/core.c").write_bytes(old)
    put(kernel, overlay)
    assert b"more" in (kernel / "block/core.c").read_bytes()


def test_only_a_kernel_tree_is_grafted(overlay, tmp_path):
    with pytest.raises(graft.GraftError, match="no kernel source tree"):
        graft.Tree(tmp_path / "nothing", overlay)
