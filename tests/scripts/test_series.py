# SPDX-License-Identifier: GPL-2.0
"""The series as mails, from a made-up overlay and from the project's own."""

import subprocess

import pytest
from test_graft import PATCH, contents, fill

import graft
import series
import settings
import steps

ADDS = """\
From: project <project@example.org>
Subject: [PATCH] nvdimm: Add a driver

It is better.
---
Adds: drivers/nvdimm/ours/
Adds: rust/kernel/virtio.rs

--- a/drivers/nvdimm/Makefile
+++ b/drivers/nvdimm/Makefile
@@ -1 +1,2 @@
 obj-y += core.o
+obj-y += ours/
"""
NEW = ("drivers/nvdimm/ours/main.rs", "drivers/nvdimm/ours/Makefile", "rust/kernel/virtio.rs")
OLD = {
    "Kbuild": "obj-y += drivers/\n",
    "scripts/thing": "",
    "block/core.c": "int one;\nint two;\n",
    "drivers/nvdimm/Makefile": "obj-y += core.o\n",
}


@pytest.fixture(name="tree")
def make_tree(tmp_path, monkeypatch):
    """A grafted tree of a made-up overlay."""
    overlay = tmp_path / "overlay"
    fill(tmp_path / "kernel", OLD)
    fill(overlay, {"patches/0001-more.patch": PATCH, "patches/0002-driver.patch": ADDS,
                   **{name: f"// {name}\n" for name in NEW}})
    for function in (graft.new_files, graft.series):
        monkeypatch.setattr(function, "__defaults__", (overlay,))
    monkeypatch.setattr(settings, "ROOT", overlay)
    tree = graft.Tree(tmp_path / "kernel", overlay)
    tree.graft()
    return tree


def test_mails_make_the_tree(tree, tmp_path):
    """git am makes of a kernel's own files what grafting made of them."""
    mails = series.make_mails(tree, tmp_path / "mails")
    assert [mail.name for mail in mails] == ["0001-block-Add-one-more-thing.patch",
                                             "0002-nvdimm-Add-a-driver.patch"]
    clone = tmp_path / "clone"
    fill(clone, OLD)
    series.git(clone, "init", "-q")
    series.git(clone, "add", "-A")
    series.git(clone, "commit", "-qm", "pristine")
    series.git(clone, "am", "-q", *map(str, mails))
    grafted = contents(tree.path)
    del grafted[graft.MANIFEST]
    assert contents(clone) == grafted
    log = series.git(clone, "log", "-1", "--format=%an <%ae>%n%B")
    assert log.strip() == "project <project@example.org>\nnvdimm: Add a driver\n\nIt is better."


@pytest.mark.parametrize("old,new,word", [
    ("Adds: rust/kernel/virtio.rs\n", "", "no patch adds .*rust/kernel/virtio.rs"),
    ("Adds: rust/kernel/virtio.rs\n", "Adds: rust/kernel/gone.rs\n", "gone.rs, which does not"),
    ("Adds: rust/", "Adds: drivers/nvdimm/ours/main.rs\nAdds: rust/", "main.rs is added by"),
    ("Subject: ", "Title: ", "0002-driver.patch: no Subject:"),
])
def test_bad_series_are_refused_by_name(tree, tmp_path, old, new, word):
    """Each new file belongs to one commit, and each commit has its headers."""
    fill(tree.overlay, {"patches/0002-driver.patch": ADDS.replace(old, new)})
    tree.graft()
    with pytest.raises((steps.Trouble, graft.GraftError), match=word):
        series.make_mails(tree, tmp_path / "mails")


def test_a_patch_that_the_kernel_has_is_refused_by_name(tree, tmp_path):
    """The mails are for a kernel without it."""
    tree.remove()
    fill(tree.path, {"block/core.c": "int one;\nint more;\nint two;\n"})
    tree.graft()
    with pytest.raises(steps.Trouble, match="has these patches already: 0001-more.patch"):
        series.make_mails(tree, tmp_path / "mails")


def test_a_git_hook_keeps_its_repository(tree, tmp_path, monkeypatch):
    """Git tells a hook by variables which repository it works on; the mails are made elsewhere."""
    user = tmp_path / "user"
    fill(user, {"file": "at work\n"})
    series.git(user, "init", "-q")
    before = contents(user / ".git")
    monkeypatch.setenv("GIT_DIR", str(user / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(user / ".git/index"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "format.noprefix")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    mails = series.make_mails(tree, tmp_path / "mails")
    assert contents(user / ".git") == before
    assert graft.touched([[mail.name, mail.read_text()] for mail in mails]) == \
        sorted({*NEW, "block/core.c", "drivers/nvdimm/Makefile"})


def test_own_series_is_complete():
    """Each new file of the project is added by one commit, and has an entry in MAINTAINERS."""
    names = graft.new_files()
    commits = series.commits()
    series.shares(commits, names)
    entry = [line[3:] for commit in commits for line in commit.text.splitlines()
             if line.startswith("+F:")]
    covered = [line.lstrip() for line in entry]
    assert [name for name in names if not any(
        name == path or path.endswith("/") and name.startswith(path) for path in covered)] == []


@pytest.mark.parametrize("path,target", [
    ("rust/kernel/virtio.rs", "rust/kernel.o"),
    ("drivers/md/md.c", "drivers/md/"),
    ("drivers/nvdimm/pmem.c", "drivers/nvdimm/"),
    ("drivers/virtio/Makefile", "drivers/virtio/"),
    ("samples/rust/Makefile", "samples/rust/"),
])
def test_objects_of_a_commit(path, target):
    """A commit is built where it changes code, and documentation is not built."""
    assert target in series.objects([path])
    assert series.objects(["Documentation/driver-api/nvdimm/flush.rst"]) == []


def test_git_am_takes_the_patches(tmp_path):
    """Each file of patches/ is a mail by its form."""
    for name, text in graft.series():
        (tmp_path / name).write_text(text)
        done = subprocess.run(["git", "mailinfo", "msg", "patch"], input=text, text=True,
                              cwd=tmp_path, capture_output=True, check=True)
        assert "Subject: " in done.stdout and "Email: " in done.stdout
