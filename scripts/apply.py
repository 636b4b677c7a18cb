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
        raise settings.BadSetting("no kernel tree is given: use KDIR=/path/to/linux")
    return graft.Tree(Path(name).expanduser())


def changed(tree):
    """List a git tree's changed files, those of the graft apart.

    Files that git ignores or does not track do not count: grafting never overwrites them.
    """
    if not (tree.path / ".git").exists():
        return []
    text = steps.output(["git", "-C", tree.path, "diff", "--name-only", "-z", "--no-renames",
                         "HEAD"])
    if text is None:
        raise steps.Trouble(f"{tree.path}: 'git diff HEAD' fails there")
    ours = {*tree.copied, *graft.touched(tree.patches)}
    return [name for name in text.split("\0") if name and name not in ours]


def refuse_dirty(tree):
    """Refuse a tree with uncommitted changes, unless FORCE=1 allows them."""
    names = changed(tree)
    if not names or settings.flag("FORCE"):
        return
    shown = names[:10] + (["…"] if len(names) > 10 else [])
    raise steps.Trouble(
        f"{tree.path} has uncommitted changes:\n"
        + "".join(f"  {name}\n" for name in shown)
        + "commit or stash them, or use FORCE=1 to graft beside them"
    )


def report(tree):
    """Print what is in the tree of ours, and what to do next."""
    for name, content in sorted(tree.copied.items()):
        print(f"{'new' if content else 'linked'}: {name}")
    for name in graft.touched(tree.patches):
        print(f"patched: {name}")
    print(f"{tree.path} has the driver: CONFIG_VIRTIO_PMEM_RUST; it needs CONFIG_RUST=y, "
          "CONFIG_VIRTIO=y and CONFIG_LIBNVDIMM=y")
    print(f"take it off again with: make unapply KDIR={tree.path}")


def main():
    """Graft, or with --remove take the overlay off."""
    try:
        tree = user_tree()
        if sys.argv[1:] == ["--remove"]:
            tree.remove()
            print(f"{tree.path} is as it was before")
            return
        kernel_source.check_pieces(tree.path)
        refuse_dirty(tree)
        tree.graft(link=settings.flag("LINK"))
        report(tree)
    except (graft.GraftError, OSError, subprocess.SubprocessError) as error:
        raise steps.Trouble(f"graft: {error}") from error


if __name__ == "__main__":
    steps.main(main)
