# SPDX-License-Identifier: GPL-2.0
"""make apply and make unapply on a user's own tree."""

import subprocess
import sys

import kernel_pieces
import pytest
from test_graft import contents, fill

import apply
import graft
import steps

PATCH = """\
Say one more thing.

--- a/drivers/nvdimm/label.c
+++ b/drivers/nvdimm/label.c
@@ -1,2 +1,3 @@
 int one;
+int more;
 int two;
"""


@pytest.fixture(name="overlay", autouse=True)
def make_overlay(tmp_path, monkeypatch):
    """An overlay with a new file and a patch."""
    fill(tmp_path / "overlay", {
        "drivers/nvdimm/ours/main.rs": "// ours\n",
        "patches/more.patch": PATCH,
    })
    monkeypatch.setattr(graft, "OVERLAY", tmp_path / "overlay")
    monkeypatch.setattr(graft.Tree.__init__, "__defaults__", (tmp_path / "overlay",))


@pytest.fixture(name="kernel")
def make_kernel(tmp_path, monkeypatch):
    """A kernel tree, which KDIR names."""
    kernel = tmp_path / "kernel"
    kernel_pieces.make(kernel)
    fill(kernel, {
        "Kbuild": "obj-y += drivers/\n",
        "Makefile": "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 12\n",
        "scripts/thing": "",
        "drivers/nvdimm/Makefile": "obj-y += core.o\n",
        "drivers/nvdimm/label.c": "int one;\nint two;\n",
    })
    monkeypatch.setenv("KDIR", str(kernel))
    return kernel


@pytest.fixture(name="git")
def make_git(kernel):
    """Make the tree a git checkout; returns what runs git there."""
    def git(*words):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
                       cwd=kernel, check=True, capture_output=True)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "kernel")
    return git


def run(monkeypatch, *words):
    """Run the tool."""
    monkeypatch.setattr(sys, "argv", ["apply", *words])
    apply.main()


def test_there_and_back(kernel, monkeypatch, capsys):
    """The tool lists what it changes, and takes it back to the last byte."""
    before = contents(kernel)
    for _ in range(2):
        run(monkeypatch)
        said = capsys.readouterr().out
        assert "new: drivers/nvdimm/ours/main.rs\n" in said
        assert "patched: drivers/nvdimm/label.c\n" in said
    run(monkeypatch, "--remove")
    assert contents(kernel) == before


@pytest.mark.usefixtures("git")
def test_links(kernel, monkeypatch, capsys):
    """LINK=1 links new files instead of copying them."""
    before = contents(kernel)
    monkeypatch.setenv("LINK", "1")
    run(monkeypatch)
    assert "linked: drivers/nvdimm/ours/main.rs\n" in capsys.readouterr().out
    run(monkeypatch)
    run(monkeypatch, "--remove")
    assert contents(kernel) == before


@pytest.mark.usefixtures("git")
def test_a_grafted_git_tree_is_clean(kernel, monkeypatch):
    """What grafting has changed does not count as a change of the user."""
    before = contents(kernel)
    run(monkeypatch)
    run(monkeypatch)
    run(monkeypatch, "--remove")
    assert contents(kernel) == before


@pytest.mark.usefixtures("git")
def test_dirty_tree_is_refused(kernel, monkeypatch):
    """Uncommitted changes stop it, by name; FORCE=1 grafts beside them."""
    (kernel / "scripts/thing").write_text("at work\n")
    before = contents(kernel)
    with pytest.raises(steps.Trouble, match=r"scripts/thing(.|\n)*FORCE=1"):
        run(monkeypatch)
    assert contents(kernel) == before
    monkeypatch.setenv("FORCE", "1")
    run(monkeypatch)
    run(monkeypatch, "--remove")
    assert contents(kernel) == before


def test_staged_changes_are_changes(kernel, git, monkeypatch):
    """Changes in the index alone count, too."""
    (kernel / "scripts/thing").write_text("at work\n")
    git("add", "-A")
    with pytest.raises(steps.Trouble, match="uncommitted changes"):
        run(monkeypatch)


def test_tree_built_in_place_is_taken(kernel, monkeypatch):
    """It is the user's own tree, which may be built in place."""
    (kernel / ".config").touch()
    run(monkeypatch)


def test_kernel_that_lacks_something_is_refused(kernel, monkeypatch):
    kernel_pieces.change(kernel, "SpinLockIrq", "SpinLockSoft")
    before = contents(kernel)
    with pytest.raises(steps.Trouble, match=r"SpinLockIrq(.|\n)*Linux 7\.2\.12: use Linux 7\.3"):
        run(monkeypatch)
    assert contents(kernel) == before


def test_tree_that_patches_do_not_fit_stays_as_it_is(kernel, monkeypatch):
    (kernel / "drivers/nvdimm/label.c").write_text("int other;\n")
    before = contents(kernel)
    with pytest.raises(steps.Trouble, match=r"more\.patch does not apply"):
        run(monkeypatch)
    assert contents(kernel) == before


def test_without_a_tree(monkeypatch):
    with pytest.raises(ValueError, match="KDIR="):
        run(monkeypatch)
