# SPDX-License-Identifier: GPL-2.0
"""Graft this overlay onto a kernel tree, or take it off again.

A file that the kernel lacks is copied. A file that it has gets our fragment appended, between
comment markers. Then patches/*.patch are applied. Nothing that is already as it should be is
written, so time stamps stay and make rebuilds nothing. What was done is noted in the tree itself,
so that what has left the overlay leaves the tree too.
"""

import copy
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

# All that reaches a kernel tree. Whatever is not named here stays in this repository.
GRAFTED = (
    "Kbuild",
    "Kconfig",
    "MAINTAINERS",
    "Documentation/",
    "drivers/",
    "include/",
    "rust/",
    "samples/",
    "tests/kunit/",
)

# Build outputs, for an overlay that is not a git checkout and so has no .gitignore to ask.
OUTPUT_DIRS = {"target", "__pycache__", ".git"}
OUTPUT_SUFFIXES = (".o", ".ko", ".a", ".pyc", ".cmd", ".mod", ".mod.c", ".orig", ".rej")


class GraftError(Exception):
    """The tree cannot be grafted; the text says why and what to do."""


def digest(data):
    """Return the fingerprint by which a file's content is remembered."""
    return hashlib.sha256(data).hexdigest()


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


def overlay_files(overlay):
    """List the overlay's grafted files by their paths, build outputs left out."""
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
    return sorted(
        name for name in set(names)
        if (name in GRAFTED or name.startswith(tuple(g for g in GRAFTED if g.endswith("/"))))
        and not name.endswith(OUTPUT_SUFFIXES)
        and (overlay / name).is_file()
    )


def markers(name):
    """Return the lines that stand before and after our text in a file the kernel has."""
    base = name.rsplit("/", 1)[-1]
    # get_maintainer.pl skips lines that begin with a hash, so MAINTAINERS has comments after all.
    if base.startswith(("Kconfig", "Kbuild", "Makefile", "MAINTAINERS", "bindgen_parameters")) \
            or base.endswith((".py", ".sh")):
        form = "# {}\n"
    elif base.endswith(".rs"):
        form = "// {}\n"
    elif base.endswith((".c", ".h", ".S", ".lds")):
        form = "/* {} */\n"
    elif base.endswith(".rst"):
        form = "\n.. {}\n\n"
    else:
        raise GraftError(f"{name}: the kernel has this file, and nobody told how to comment in it")
    # checkpatch.pl wants an empty line after a C function, even before a comment.
    gap = "\n" if base.endswith(".c") else ""
    return form.format(f"{NAME}: begin"), gap + form.format(f"{NAME}: end")


def fragment(overlay, name):
    """Return what is appended to a kernel file: the overlay's text without its SPDX line."""
    text = (overlay / name).read_text()
    first, _, rest = text.partition("\n")
    if "SPDX-License-Identifier" in first:
        text = rest.lstrip("\n")
    begin, end = markers(name)
    return f"\n{begin}{text.rstrip()}\n{end}"


def cut(name, text, known):
    """Return a kernel file's text without ours; known is the text that was appended."""
    for block in known:
        if block and block in text:
            return text.replace(block, "", 1)
    begin, end = (re.escape(marker) for marker in markers(name))
    return re.sub(f"\n{begin}.*?{end}", "", text, count=1, flags=re.S)


def touched(patch):
    """Return the paths that a patch's text changes."""
    found = re.findall(r"^(?:---|\+\+\+) [^/\s]+/([^\t\n]+)", patch, flags=re.M)
    return sorted(set(found))


class Tree:
    """A kernel tree and what stands in it of ours."""

    def __init__(self, path, overlay=OVERLAY):
        self.path = Path(path).resolve()
        self.overlay = overlay
        if not (self.path / "Kbuild").is_file() or not (self.path / "scripts").is_dir():
            raise GraftError(f"{path}: this is no kernel source tree")
        if self.path == overlay:
            raise GraftError(f"{path}: this is the overlay itself")
        try:
            note = dict(json.loads(read(self.path / MANIFEST) or b"{}"))
        except (TypeError, ValueError) as error:
            raise GraftError(
                f"{self.path / MANIFEST}: what grafting has noted there cannot be read ({error}); "
                "delete it, and graft again to have it written anew"
            ) from error
        self.copied = note.get("copied", {})
        self.appended = note.get("appended", {})
        self.patches = note.get("patches", [])
        self.patched = note.get("patched", {})

    def save(self):
        """Write the manifest, if it says anything new."""
        note = {
            "copied": self.copied,
            "appended": self.appended,
            "patches": self.patches,
            "patched": self.patched,
        }
        path = self.path / MANIFEST
        if not any(note.values()):
            path.unlink(missing_ok=True)
            return
        data = (json.dumps(note, indent=1, sort_keys=True) + "\n").encode()
        if read(path) != data:
            write(path, data)

    # Files

    def drop_copy(self, name):
        """Delete a file that was copied, and the directories that only held such."""
        path = self.path / name
        path.unlink(missing_ok=True)
        for folder in path.relative_to(self.path).parents:
            try:
                (self.path / folder).rmdir()
            except OSError:
                break
        del self.copied[name]

    def drop_append(self, name):
        """Take our text out of a kernel file."""
        path = self.path / name
        old = read(path)
        if old is not None:
            new = cut(name, old.decode(), [self.appended[name]]).encode()
            if new != old:
                write(path, new)
        del self.appended[name]

    def check_copies(self, wanted):
        """Refuse to lose what somebody changed in a copied file."""
        for name, known in self.copied.items():
            there = read(self.path / name)
            fine = {known, digest(read(self.overlay / name) or b"") if name in wanted else known}
            if there is not None and digest(there) not in fine:
                raise GraftError(
                    f"{self.path / name}: was grafted and has since been changed there; "
                    "move the change into the overlay, or delete the file"
                )

    def plan(self, wanted):
        """Split the overlay's files into those to copy and those to append."""
        copies, appends = [], []
        for name in wanted:
            there = read(self.path / name)
            ours = there is None or name in self.copied
            if ours or there == (self.overlay / name).read_bytes():
                copies.append(name)
            else:
                appends.append(name)
        return copies, appends

    def put(self, wanted):
        """Bring the tree's files in line with the overlay's."""
        self.check_copies(wanted)
        copies, appends = self.plan(wanted)
        blocks = {name: fragment(self.overlay, name) for name in appends}
        for name in [n for n in self.copied if n not in copies]:
            self.drop_copy(name)
        for name in [n for n in self.appended if n not in appends]:
            self.drop_append(name)

        # The note comes first: were it last, an interrupted run's copies would look like the
        # kernel's own files to the next one.
        for name in copies:
            self.copied.setdefault(name, digest((self.overlay / name).read_bytes()))
        self.save()

        for name in copies:
            source, target = self.overlay / name, self.path / name
            data, mode = source.read_bytes(), source.stat().st_mode & 0o777
            if read(target) != data or target.stat().st_mode & 0o111 != mode & 0o111:
                write(target, data, mode)
            self.copied[name] = digest(data)
        for name in appends:
            path, block = self.path / name, blocks[name]
            old = path.read_text()
            base = cut(name, old, [self.appended.get(name), block])
            new = base + ("" if base.endswith("\n") else "\n") + block
            if not base.endswith("\n"):
                block = "\n" + block
            if new != old:
                write(path, new.encode())
            self.appended[name] = block

    # Patches

    def state(self, patches):
        """Fingerprint the files that patches change, our appended text apart."""
        names = {name for _, text in patches for name in touched(text)}
        state = {}
        for name in sorted(names):
            data = read(self.path / name)
            if data is not None and name in self.appended:
                data = cut(name, data.decode(), [self.appended[name]]).encode()
            state[name] = digest(data) if data is not None else None
        return state

    def run_patch(self, text, *options):
        """Run patch(1), which unlike git-apply never minds in whose work tree it is."""
        try:
            return subprocess.run(
                ["patch", "-p1", "--batch", "--fuzz=0", "--no-backup-if-mismatch",
                 "--reject-file=-", *options],
                cwd=self.path, input=text, text=True, capture_output=True, check=False,
            )
        except FileNotFoundError as error:
            raise GraftError("there is no patch(1): install the package patch") from error

    def apply(self, name, text):
        """Apply one patch, or say that it does not fit."""
        before = self.state([(name, text)])
        trial = self.run_patch(text, "--forward", "--dry-run")
        if trial.returncode:
            if before and not self.run_patch(text, "--reverse", "--dry-run").returncode:
                return
            raise GraftError(f"patches/{name} does not apply:\n{trial.stdout}{trial.stderr}")
        done = self.run_patch(text, "--forward")
        if done.returncode or self.state([(name, text)]) == before:
            raise GraftError(f"patches/{name} changed nothing:\n{done.stdout}{done.stderr}")

    def revert(self, name, text):
        """Take one patch back; a tree that was reset by other means does not have it."""
        if not self.run_patch(text, "--reverse", "--dry-run").returncode:
            self.run_patch(text, "--reverse")
        elif self.run_patch(text, "--forward", "--dry-run").returncode:
            raise GraftError(
                f"patches/{name} can be neither taken back nor applied: "
                f"restore {', '.join(touched(text))} and graft again"
            )

    def patch(self, wanted):
        """Bring the applied patches in line with the wanted ones."""
        if self.patches == wanted and self.patched == self.state(wanted):
            return
        same = 0
        if self.patched == self.state(self.patches):
            while same < min(len(wanted), len(self.patches)) and \
                    wanted[same] == self.patches[same]:
                same += 1
        for name, text in reversed(self.patches[same:]):
            self.revert(name, text)
            self.patches.pop()
            self.patched = self.state(self.patches)
            self.save()
        for name, text in wanted[same:]:
            self.apply(name, text)
            self.patches.append([name, text])
            self.patched = self.state(self.patches)
            self.save()

    def try_patch(self, wanted):
        """Patch a copy of the files first: a tree that the patches do not fit stays as it is."""
        with tempfile.TemporaryDirectory() as folder:
            trial = copy.deepcopy(self)
            trial.path = Path(folder)
            for name in {n for _, text in [*wanted, *self.patches] for n in touched(text)}:
                data = read(self.path / name)
                if data is not None:
                    write(trial.path / name, data)
            trial.patch(wanted)

    # Both

    def graft(self):
        """Put the overlay on."""
        folder = self.overlay / "patches"
        patches = [[p.name, p.read_text()] for p in sorted(folder.glob("*.patch"))]
        self.try_patch(patches)
        self.put(overlay_files(self.overlay))
        self.patch(patches)
        self.save()

    def remove(self):
        """Take the overlay off, to the last byte."""
        self.check_copies(())
        self.patch([])
        for name in list(self.appended):
            self.drop_append(name)
        for name in list(self.copied):
            self.drop_copy(name)
        self.save()
