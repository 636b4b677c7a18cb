# SPDX-License-Identifier: GPL-2.0
"""Graft the overlay onto the user's own kernel tree (KDIR=), or take it off again (--remove)."""

import subprocess
import sys
from pathlib import Path

import graft
import kernel_source
import settings
import steps


def user_tree():
    """Return the tree that KDIR names."""
    name = settings.get("KDIR")
    if not name:
        raise settings.BadSetting("which kernel tree? Give KDIR=/path/to/linux")
    return graft.Tree(Path(name).expanduser())


def changed(tree):
    """List the files of a git tree that somebody has changed, other than by grafting.

    What git ignores or does not know is nobody's concern: grafting never overwrites it.
    """
    if not (tree.path / ".git").exists():
        return []
    text = steps.output(["git", "-C", tree.path, "diff", "--name-only", "-z", "--no-renames",
                         "HEAD"])
    if text is None:
        raise steps.Trouble(f"{tree.path}: git does not tell what was changed there")
    ours = {*tree.copied, *tree.appended, *tree.patched}
    return [name for name in text.split("\0") if name and name not in ours]


def refuse_dirty(tree):
    """Refuse a tree in which somebody is at work, unless FORCE=1 says that this is all right."""
    names = changed(tree)
    if not names or settings.flag("FORCE"):
        return
    shown = names[:10] + (["…"] if len(names) > 10 else [])
    raise steps.Trouble(
        f"{tree.path} has uncommitted changes:\n"
        + "".join(f"  {name}\n" for name in shown)
        + "commit or stash them, or say FORCE=1 to graft beside them"
    )


def report(tree):
    """Say what is in the tree of ours."""
    for title, names in (("new", tree.copied), ("appended to", tree.appended),
                         ("patched", tree.patched)):
        for name in sorted(names):
            print(f"{title}: {name}")
    print(f"{tree.path} has the driver: CONFIG_VIRTIO_PMEM_RUST; it needs CONFIG_RUST=y, "
          "CONFIG_VIRTIO=y and CONFIG_LIBNVDIMM=y")
    print(f"take it off again with: make unapply KDIR={tree.path}")


def main():
    """Do what the command line says."""
    try:
        tree = user_tree()
        if sys.argv[1:] == ["--remove"]:
            tree.remove()
            print(f"{tree.path} is as it was before")
            return
        kernel_source.check_pieces(tree.path)
        refuse_dirty(tree)
        tree.graft()
        report(tree)
    except (graft.GraftError, OSError, subprocess.SubprocessError) as error:
        raise steps.Trouble(f"graft: {error}") from error


if __name__ == "__main__":
    steps.main(main)
