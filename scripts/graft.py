# SPDX-License-Identifier: GPL-2.0
"""Graft this overlay onto a kernel tree, or take it off again.

New files are copied to the paths that they have here, or linked. Changes of the kernel's own files
are patches/*.patch, applied in the order of their names. A file whose content is right is not
written, so its time stamp stays and make rebuilds nothing. A note in the tree itself lists what was
done, so that a file that leaves the overlay leaves the tree, too.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

NAME = "virtio-pmem-rust"
MANIFEST = f".{NAME}.json"
OVERLAY = Path(__file__).resolve().parent.parent

# The folders that hold a kernel's files.
FOLDERS = ("Documentation/", "drivers/", "include/", "rust/", "samples/")

# Build outputs, for an overlay without git's list of ignored files.
OUTPUT_DIRS = {"target", "__pycache__", ".git"}
OUTPUT_SUFFIXES = (".o", ".ko", ".a", ".pyc", ".cmd", ".mod", ".mod.c", ".orig", ".rej")


class GraftError(Exception):
    """The tree cannot be grafted; the text gives the reason and the remedy."""


def digest(data):
    """Return a fingerprint of a file's content, None for no file."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def read(path):
    """Return a file's bytes, or None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write(path, data, mode=None):
    """Replace a file in one step; a hard link to the old content keeps the old content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode is None:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".graft-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def new_files(overlay=OVERLAY):
    """List the overlay's new files for a kernel tree by their paths."""
    git = None
    if (overlay / ".git").exists() and shutil.which("git"):
        git = subprocess.run(
            ["git", "-C", overlay, "ls-files", "-z", "-co", "--exclude-standard"],
            capture_output=True, check=False,
        )
    if git and git.returncode == 0:
        names = git.stdout.decode().split("\0")
    else:
        names = []
        for folder, folders, files in os.walk(overlay):
            folders[:] = [f for f in folders if f not in OUTPUT_DIRS]
            names += [(Path(folder) / f).relative_to(overlay).as_posix() for f in files]
    return sorted(name for name in set(names)
                  if name.startswith(FOLDERS) and not name.endswith(OUTPUT_SUFFIXES)
                  and (overlay / name).is_file())


def series(overlay=OVERLAY):
    """Return the overlay's patches in order, as [name, text] pairs."""
    return [[path.name, path.read_text()] for path in sorted((overlay / "patches").glob("*.patch"))]


def touched(patches):
    """Return the paths that patches change."""
    return sorted({name for _, text in patches
                   for name in re.findall(r"^(?:---|\+\+\+) [ab]/([^\t\n]+)", text, flags=re.M)})


def by_file(patches):
    """Split patches into their parts for single files, as ((patch, file), text) pairs."""
    return [((name, touched([[name, part]])[0]), part) for name, text in patches
            for part in re.split(r"^(?=--- [ab]/)", text, flags=re.M)[1:]]


def run_patch(folder, text, *options):
    """Run patch(1) in a folder; return whether it succeeded, and its output.

    Unlike git apply, patch(1) works in any folder, whichever checkout contains it.
    """
    try:
        done = subprocess.run(
            ["patch", "-p1", "--force", "--fuzz=0", "--no-backup-if-mismatch",
             "--reject-file=-", *options],
            cwd=folder, input=text, text=True, capture_output=True, check=False,
        )
    except FileNotFoundError as error:
        raise GraftError("patch(1) is missing: install the package patch") from error
    return not done.returncode, done.stdout + done.stderr


class Tree:
    """A kernel tree and the parts of the overlay in it.

    copied    the new files, with the digests of their content; None for a link
    patches   the applied patches
    """

    def __init__(self, path, overlay=OVERLAY):
        self.path = Path(path).resolve()
        self.overlay = overlay
        if not (self.path / "Kbuild").is_file() or not (self.path / "scripts").is_dir():
            raise GraftError(f"{path}: not a kernel source tree")
        if self.path == overlay:
            raise GraftError(f"{path}: this is the overlay itself")
        try:
            note = dict(json.loads(read(self.path / MANIFEST) or b"{}"))
        except (TypeError, ValueError) as error:
            raise GraftError(
                f"{self.path / MANIFEST}: the note of the last graft cannot be read ({error}); "
                "delete it, and graft again"
            ) from error
        if "appended" in note:
            raise GraftError(f"{self.path}: has been grafted by an older version of the overlay; "
                             "take it off with that version, or use a fresh tree")
        self.copied = note.get("copied", {})
        self.patches = note.get("patches", [])

    def save(self):
        """Write the note, if it has changed."""
        path = self.path / MANIFEST
        if not self.copied and not self.patches:
            path.unlink(missing_ok=True)
            return
        note = {"copied": self.copied, "patches": self.patches}
        data = (json.dumps(note, indent=1, sort_keys=True) + "\n").encode()
        if read(path) != data:
            write(path, data)

    # New files

    def is_ours(self, name):
        """Return whether the tree's file is our link, or has a content that we copied."""
        path = self.path / name
        if path.is_symlink():
            # A noted link may lead to where the overlay was.
            return path.readlink() == self.overlay / name or self.copied.get(name, "") is None
        there = digest(read(path))
        return there in (None, self.copied.get(name), digest(read(self.overlay / name)))

    def check(self, wanted):
        """Refuse to overwrite a file of the kernel, or a change that was made in the tree."""
        for name in sorted({*wanted, *self.copied}):
            if self.is_ours(name):
                continue
            if name in self.copied:
                raise GraftError(
                    f"{self.path / name}: has changed since it was grafted; "
                    "move the change into the overlay, or delete the file"
                )
            raise GraftError(
                f"{self.path / name}: the kernel has this file, and the overlay brings it as new "
                f"({self.overlay / name}); make ours a patch of the kernel's, or rename it"
            )

    def drop(self, name):
        """Delete a new file, and the directories that are empty without it."""
        (self.path / name).unlink(missing_ok=True)
        for folder in Path(name).parents:
            try:
                (self.path / folder).rmdir()
            except OSError:
                break
        del self.copied[name]

    def put(self, name, link):
        """Copy or link a new file."""
        source, target = self.overlay / name, self.path / name
        if link:
            if not target.is_symlink() or target.readlink() != source:
                target.unlink(missing_ok=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
            self.copied[name] = None
            return
        data, mode = source.read_bytes(), source.stat().st_mode & 0o777
        if target.is_symlink() or read(target) != data or \
                target.stat().st_mode & 0o111 != mode & 0o111:
            write(target, data, mode)
        self.copied[name] = digest(data)

    # Patches

    def repatched(self, wanted):
        """Take the applied patches back and apply the wanted ones, in a copy of their files.

        Return the files' new contents, and the patches that the tree has because of us: not those
        that it has anyway, as a newer kernel may.
        """
        applied = []
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            names = touched([*self.patches, *wanted])
            for name in names:
                data = read(self.path / name)
                if data is not None:
                    write(folder / name, data)
            # File by file: an interrupted run has replaced some.
            new = dict(by_file(wanted))
            for (name, file), text in reversed(by_file(self.patches)):
                # The tree may have been edited as the patch was.
                for part in (text, new.get((name, file), text)):
                    if run_patch(folder, part, "--reverse", "--dry-run")[0]:
                        run_patch(folder, part, "--reverse")
                        break
                else:
                    # A tree that was reset does not have the patch any more.
                    if not run_patch(folder, text, "--dry-run")[0]:
                        raise GraftError(
                            f"{self.path / file} fits patches/{name} neither with nor without it: "
                            "restore the file (git checkout), or start from a fresh source"
                        )
            # The last one first, because the others' surroundings may be of its making.
            there = [name for name, text in reversed(wanted)
                     if run_patch(folder, text, "--reverse", "--dry-run")[0]
                     and run_patch(folder, text, "--reverse")[0]]
            for name, text in wanted:
                if not touched([[name, text]]):
                    raise GraftError(f"patches/{name} changes nothing")
                done, said = run_patch(folder, text)
                if not done:
                    raise GraftError(f"patches/{name} does not apply to {self.path}:\n{said}")
                if name not in there:
                    applied.append([name, text])
            return {name: read(folder / name) for name in names}, applied

    # Both

    def change(self, wanted, patches, link=False):
        """Bring the tree in line with new files and patches; change nothing if that fails."""
        self.check(wanted)
        contents, applied = self.repatched(patches)
        for name in [n for n in self.copied if n not in wanted]:
            self.drop(name)
        # The note comes first: the next run knows what an interrupted one has left.
        for name in wanted:
            self.copied.setdefault(name, digest(read(self.overlay / name)))
        self.patches += [patch for patch in applied if patch not in self.patches]
        self.save()
        for name in wanted:
            self.put(name, link)
        for name, data in contents.items():
            if data is not None and data != read(self.path / name):
                write(self.path / name, data)
        self.patches = applied
        self.save()

    def graft(self, link=False):
        """Put the overlay on, with copies or links of its new files."""
        self.change(new_files(self.overlay), series(self.overlay), link)

    def remove(self):
        """Take the overlay off, to the last byte."""
        self.change([], [])
