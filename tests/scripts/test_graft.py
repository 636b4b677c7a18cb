# SPDX-License-Identifier: GPL-2.0
"""graft.py on a made-up kernel tree and a made-up overlay."""

import contextlib
import json
import os
import subprocess

import pytest

import graft

PATCH = """\
From: project <project@example.org>
Subject: [PATCH] block: Add one more thing

There was one too few.
---
--- a/block/core.c
+++ b/block/core.c
@@ -1,2 +1,3 @@
 int one;
+int more;
 int two;
"""
TWO_FILES = PATCH + """\
--- a/block/Makefile
+++ b/block/Makefile
@@ -1 +1,2 @@
 obj-y += core.o
+obj-y += more.o
"""

NEW = ("drivers/nvdimm/ours/main.rs", "drivers/nvdimm/ours/.kunitconfig", "rust/kernel/virtio.rs")


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
        "scripts/thing": "",
        "block/core.c": "int one;\nint two;\n",
        "block/Makefile": "obj-y += core.o\n",
        "drivers/nvdimm/Makefile": "obj-y += core.o\n",
        "rust/kernel/lib.rs": "pub mod alloc;\n",
    })
    return tmp_path / "kernel"


@pytest.fixture(name="overlay")
def make_overlay(tmp_path):
    """An overlay with new files, a patch, and files that stay in it."""
    fill(tmp_path / "overlay", {
        "Makefile": "test:\n",
        "README.md": "ours\n",
        "scripts/tool": "ours\n",
        "tests/boot/test_x.py": "ours\n",
        "patches/0001-more.patch": TWO_FILES,
        **{name: f"// {name}\n" for name in NEW},
    })
    return tmp_path / "overlay"


def put(kernel, overlay, **options):
    """Graft."""
    graft.Tree(kernel, overlay).graft(**options)


def remove(kernel, overlay):
    """Take the graft off."""
    graft.Tree(kernel, overlay).remove()


def test_new_files_and_patches_reach_the_tree_and_nothing_else(kernel, overlay):
    before = contents(kernel)
    put(kernel, overlay)
    after = contents(kernel)
    assert set(after) - set(before) == {*NEW, graft.MANIFEST}
    assert {name for name in before if before[name] != after[name]} == {"block/core.c",
                                                                             "block/Makefile"}
    assert after["block/core.c"] == b"int one;\nint more;\nint two;\n"
    assert after[NEW[0]] == f"// {NEW[0]}\n".encode()


def test_build_outputs_stay_out(kernel, overlay):
    fill(overlay, {"drivers/nvdimm/ours/main.o": "", "rust/target/x": "",
                   "rust/__pycache__/x": ""})
    put(kernel, overlay)
    assert not (kernel / "drivers/nvdimm/ours/main.o").exists()
    assert sorted(path.name for path in (kernel / "rust").iterdir()) == ["kernel"]


def test_ignored_files_of_a_checkout_stay_out(kernel, overlay):
    subprocess.run(["git", "init", "-q", overlay], check=True)
    fill(overlay, {".gitignore": "junk\n", "drivers/nvdimm/ours/junk": "", "rust/new.rs": ""})
    put(kernel, overlay)
    assert not (kernel / "drivers/nvdimm/ours/junk").exists()
    assert (kernel / "rust/new.rs").exists()


@pytest.mark.parametrize("link", [False, True])
def test_second_run_changes_nothing(kernel, overlay, link):
    put(kernel, overlay, link=link)
    before = snapshot(kernel)
    put(kernel, overlay, link=link)
    assert snapshot(kernel) == before


def test_changed_files_are_replaced_and_others_keep_their_time(kernel, overlay):
    put(kernel, overlay)
    before = snapshot(kernel)
    fill(overlay, {NEW[0]: "// newer\n"})
    put(kernel, overlay)
    after = snapshot(kernel)
    assert after[NEW[0]][0] == b"// newer\n"
    assert {name for name in after if after[name] != before.get(name)} == {NEW[0], graft.MANIFEST}


def test_a_file_that_leaves_the_overlay_leaves_the_tree(kernel, overlay):
    before = contents(kernel)
    put(kernel, overlay)
    for name in (*NEW, "patches/0001-more.patch"):
        (overlay / name).unlink()
    put(kernel, overlay)
    assert contents(kernel) == before
    assert not (kernel / "drivers/nvdimm/ours").exists()


@pytest.mark.parametrize("link", [False, True])
def test_remove_restores_every_byte(kernel, overlay, link):
    before = contents(kernel)
    put(kernel, overlay, link=link)
    assert contents(kernel) != before
    remove(kernel, overlay)
    assert contents(kernel) == before
    assert not (kernel / "drivers/nvdimm/ours").exists()


def test_an_edit_of_a_linked_file_is_an_edit_of_the_overlay(kernel, overlay):
    put(kernel, overlay, link=True)
    (kernel / NEW[0]).write_text("// edited\n")
    assert (overlay / NEW[0]).read_text() == "// edited\n"
    put(kernel, overlay, link=True)
    remove(kernel, overlay)
    assert (overlay / NEW[0]).read_text() == "// edited\n"


def test_links_become_copies_and_copies_links(kernel, overlay):
    for link in (True, False, True):
        put(kernel, overlay, link=link)
        assert all((kernel / name).is_symlink() == link for name in NEW)
        assert all((kernel / name).read_text() == f"// {name}\n" for name in NEW)
    # The patched files are the tree's own.
    assert not (kernel / "block/core.c").is_symlink()


def test_hard_links_are_not_written_through(kernel, overlay, tmp_path):
    os.link(kernel / "block/core.c", tmp_path / "link")
    put(kernel, overlay)
    assert (tmp_path / "link").read_text() == "int one;\nint two;\n"


@pytest.mark.parametrize("link", [False, True])
def test_a_file_that_the_kernel_has_is_a_conflict_with_both_names(kernel, overlay, link):
    fill(kernel, {"rust/kernel/virtio.rs": "// the kernel's\n"})
    before = snapshot(kernel)
    with pytest.raises(graft.GraftError) as error:
        put(kernel, overlay, link=link)
    assert str(kernel / "rust/kernel/virtio.rs") in str(error.value)
    assert str(overlay / "rust/kernel/virtio.rs") in str(error.value)
    assert snapshot(kernel) == before


def test_the_same_file_in_the_kernel_is_no_conflict(kernel, overlay):
    fill(kernel, {NEW[2]: f"// {NEW[2]}\n"})
    put(kernel, overlay)


def test_lost_note(kernel, overlay):
    """Without the note, files and patches that are there already count as there."""
    put(kernel, overlay)
    before = contents(kernel)
    (kernel / graft.MANIFEST).unlink()
    put(kernel, overlay)
    after = contents(kernel)
    del before[graft.MANIFEST], after[graft.MANIFEST]
    assert after == before


@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize("at", range(8))
def test_an_interrupted_graft_is_finished_or_taken_off(kernel, overlay, monkeypatch, at, finish):
    before = contents(kernel)
    real, left = graft.write, [at]

    def fail(path, data, mode=None):
        if kernel in path.parents:
            left[0] -= 1
            if left[0] < 0:
                raise OSError("disk full")
        real(path, data, mode)
    monkeypatch.setattr(graft, "write", fail)
    with contextlib.suppress(OSError):
        put(kernel, overlay)
    monkeypatch.undo()
    if finish:
        put(kernel, overlay)
        assert b"more" in contents(kernel)["block/core.c"]
        assert b"more" in contents(kernel)["block/Makefile"]
    remove(kernel, overlay)
    assert contents(kernel) == before


def test_a_change_made_in_the_tree_is_not_lost(kernel, overlay):
    put(kernel, overlay)
    (kernel / NEW[0]).write_text("// better\n")
    for act in (put, remove):
        with pytest.raises(graft.GraftError, match="main.rs.*changed"):
            act(kernel, overlay)


def test_a_change_beside_a_patch_survives(kernel, overlay):
    """A user may edit a patched file: the added lines stay, before and after unapply."""
    put(kernel, overlay)
    text = (kernel / "block/core.c").read_text()
    (kernel / "block/core.c").write_text(text + "\n\n\n\nint user;\n")
    put(kernel, overlay)
    remove(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint two;\n\n\n\n\nint user;\n"


@pytest.mark.parametrize("git", ["none", "kernel", "around"])
def test_patches_apply_inside_and_outside_of_git_checkouts(kernel, overlay, git):
    if git != "none":
        subprocess.run(["git", "init", "-q", kernel if git == "kernel" else kernel.parent],
                       check=True)
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint more;\nint two;\n"
    assert not list(kernel.rglob("*.orig"))


@pytest.mark.parametrize("text", [
    PATCH.replace("int two", "int three"),
    PATCH.replace("block/core.c", "block/gone.c"),
    "no patch at all\n",
])
def test_a_patch_that_does_not_apply_stops_with_its_name(kernel, overlay, text):
    before = snapshot(kernel)
    fill(overlay, {"patches/0007-bad.patch": text})
    with pytest.raises(graft.GraftError, match="0007-bad.patch"):
        put(kernel, overlay)
    assert snapshot(kernel) == before


def test_patches_on_the_same_file_build_on_each_other(kernel, overlay):
    more = PATCH.replace("more", "again").replace("int one", "int more")
    fill(overlay, {"patches/0002.patch": more.replace("-1,2 +1,3", "-2,2 +2,3")})
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == (
        "int one;\nint more;\nint again;\nint two;\n")
    remove(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint two;\n"


def test_a_patch_that_the_kernel_has_is_not_ours_to_take_back(kernel, overlay):
    fill(kernel, {"block/core.c": "int one;\nint more;\nint two;\n",
                  "block/Makefile": "obj-y += core.o\nobj-y += more.o\n"})
    before = contents(kernel)
    for _ in range(2):
        put(kernel, overlay)
        assert contents(kernel)["block/core.c"] == before["block/core.c"]
    remove(kernel, overlay)
    assert contents(kernel) == before


def test_patches_that_the_kernel_has_may_build_on_each_other(kernel, overlay):
    more = PATCH.replace("more", "again").replace("int one", "int more")
    fill(overlay, {"patches/0002.patch": more.replace("-1,2 +1,3", "-2,2 +2,3")})
    put(kernel, overlay)
    (kernel / graft.MANIFEST).unlink()
    before = contents(kernel)
    put(kernel, overlay)
    assert graft.Tree(kernel, overlay).patches == []
    after = contents(kernel)
    del after[graft.MANIFEST]
    assert after == before


def test_without_patch_nothing_is_written(kernel, overlay, monkeypatch, tmp_path):
    before = snapshot(kernel)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(graft.GraftError, match="install the package patch"):
        put(kernel, overlay)
    assert snapshot(kernel) == before


@pytest.mark.parametrize("text", ["{", "[1]", "17"])
def test_a_note_that_cannot_be_read_is_refused_with_a_remedy(kernel, overlay, text):
    put(kernel, overlay)
    (kernel / graft.MANIFEST).write_text(text)
    with pytest.raises(graft.GraftError, match=f"{graft.MANIFEST}: .*delete it"):
        put(kernel, overlay)
    (kernel / graft.MANIFEST).unlink()
    put(kernel, overlay)


def test_a_tree_of_an_older_version_is_refused(kernel, overlay):
    fill(kernel, {graft.MANIFEST: json.dumps({"copied": {}, "appended": {}})})
    with pytest.raises(graft.GraftError, match="older version"):
        put(kernel, overlay)


def test_a_changed_patch_is_taken_back_and_applied_again(kernel, overlay):
    put(kernel, overlay)
    fill(overlay, {"patches/0001-more.patch": PATCH.replace("more", "less")})
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint less;\nint two;\n"


def test_a_patch_may_be_edited_in_the_tree_and_here_alike(kernel, overlay):
    put(kernel, overlay)
    (kernel / "block/core.c").write_text("int one;\nint edited;\nint two;\n")
    fill(overlay, {"patches/0001-more.patch": TWO_FILES.replace("int more", "int edited")})
    put(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint edited;\nint two;\n"
    remove(kernel, overlay)
    assert (kernel / "block/core.c").read_text() == "int one;\nint two;\n"


def test_an_edit_of_a_patched_line_is_not_lost(kernel, overlay):
    put(kernel, overlay)
    (kernel / "block/core.c").write_text("int one;\nint edited;\nint two;\n")
    before = snapshot(kernel)
    for act in (put, remove):
        with pytest.raises(graft.GraftError, match="block/core.c fits patches/0001.*restore"):
            act(kernel, overlay)
        assert snapshot(kernel) == before


def test_links_to_a_former_place_of_the_overlay_are_renewed(kernel, overlay):
    before = contents(kernel)
    put(kernel, overlay, link=True)
    overlay = overlay.rename(overlay.with_name("moved"))
    put(kernel, overlay, link=True)
    assert all((kernel / name).read_text() == f"// {name}\n" for name in NEW)
    overlay = overlay.rename(overlay.with_name("again"))
    remove(kernel, overlay)
    assert contents(kernel) == before


def test_a_tree_that_was_reset_gets_its_patch_again(kernel, overlay):
    old = (kernel / "block/core.c").read_bytes()
    put(kernel, overlay)
    (kernel / "block/core.c").write_bytes(old)
    put(kernel, overlay)
    assert b"more" in (kernel / "block/core.c").read_bytes()


def test_only_a_kernel_tree_is_grafted(overlay, tmp_path):
    with pytest.raises(graft.GraftError, match="not a kernel source tree"):
        graft.Tree(tmp_path / "nothing", overlay)


def test_the_project_itself_brings_no_file_that_the_series_patches():
    new, patched = graft.new_files(), graft.touched(graft.series())
    assert new and patched
    assert not set(new) & set(patched)
