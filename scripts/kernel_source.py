# SPDX-License-Identifier: GPL-2.0
"""The kernel source: the user's own tree, or Debian's, fetched and verified."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import graft
import packages
import pieces
import settings
import steps

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PREFERRED = "linux-source-7.3"
SUITES = ("trixie-backports", "sid", "experimental")


def version(tree):
    """Return a tree's version as numbers."""
    try:
        text = (Path(tree) / "Makefile").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise steps.Trouble(f"KDIR={tree}: no kernel source tree is there") from error
    found = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL) = (\d+)$", text, re.M))
    if len(found) < 3:
        raise steps.Trouble(f"KDIR={tree}: its Makefile is not that of a kernel")
    return tuple(int(found[part]) for part in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def check_pieces(tree):
    """Refuse a tree that lacks something."""
    have = version(tree)
    missing = pieces.missing(tree)
    if missing:
        raise steps.Trouble(
            f"{pieces.explain(tree, missing)}\n"
            f"It is Linux {'.'.join(map(str, have))}: use Linux 7.3 or newer, with KDIR="
        )


def check(tree):
    """Refuse a tree that lacks something, or in which kbuild would refuse an output directory."""
    check_pieces(tree)
    if (tree / ".config").exists():
        raise steps.Trouble(
            f"{tree} has been built in place, so kbuild builds nowhere else from it: "
            f"save its .config and run 'make -C {tree} mrproper'"
        )


# Debian's source package

class Apt:
    """A private apt configuration: the user's sources and lists stay as they are."""

    def __init__(self, folder):
        self.folder = folder
        for part in ("state/lists/partial", "cache/archives/partial", "etc"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.options = [
            f"Dir::Etc::sourcelist={folder}/etc/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::State={folder}/state",
            f"Dir::Cache={folder}/cache",
            "Dir::State::status=/dev/null",
            "APT::Get::List-Cleanup=0",
            "APT::Sandbox::User=" + ("root" if os.geteuid() == 0 else ""),
            "Acquire::Retries=3",
            "Acquire::Languages=none",
        ]
        self.log = steps.log_path("kernel-source")

    def command(self, tool, *words):
        """Return the command line of an apt tool with this configuration."""
        return [tool, *(word for option in self.options for word in ("-o", option)), *words]

    def get(self, *words, append=False):
        """Run apt-get, which most often fails for want of a network."""
        try:
            steps.run(self.command("apt-get", *words), self.log, cwd=self.folder, append=append)
        except steps.Trouble as error:
            raise steps.Trouble(
                f"nothing can be fetched from {MIRROR}: set http_proxy if the network has a proxy, "
                f"or give a source tree with KDIR=\n{steps.tail(self.log)}"
            ) from error

    def update(self, suites):
        """Fetch the lists of these suites; apt checks their signature."""
        (self.folder / "etc/sources.list").write_text("".join(
            f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n" for suite in suites
        ), encoding="ascii")
        self.get("update", "--error-on=any")

    def newest(self):
        """Return the name of the newest source package."""
        names = (steps.output(self.command("apt-cache", "pkgnames", "linux-source-")) or "").split()
        found = [tuple(map(int, m[1].split("."))) for m in
                 (re.fullmatch(r"linux-source-(\d+\.\d+)", name) for name in names) if m]
        return f"linux-source-{'.'.join(map(str, max(found)))}" if found else None

    def has(self, name):
        """Tell whether a package is in the lists."""
        return bool(steps.output(self.command("apt-cache", "show", name)))

    def download(self, name):
        """Download a package; apt checks it against the signed lists."""
        self.get("download", name, append=True)
        return next(self.folder.glob(f"{name}_*.deb"))


def file_digest(path):
    """Return a file's SHA-256."""
    value = hashlib.sha256()
    with open(path, "rb") as data:
        while block := data.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def cached():
    """Return the newest tarball in the cache that is whole."""
    notes = settings.cache().glob("linux-source-*.sha256")
    for note in sorted(notes, key=lambda path: tuple(map(int, re.findall(r"\d+", path.name))),
                       reverse=True):
        tarball = note.with_suffix("")
        if tarball.exists() and file_digest(tarball) == note.read_text(encoding="ascii").strip():
            return tarball
    return None


def fetch():
    """Download Debian's source package, keep its tarball in the cache."""
    packages.need("source")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise steps.Trouble(
            "the kernel source is fetched with apt-get and dpkg-deb, which are not there: "
            "give a source tree of Linux 7.3 or newer with KDIR="
        )
    if not Path(KEYRING).exists():
        raise steps.Trouble(f"{KEYRING} is missing: install debian-archive-keyring")
    cache = settings.cache()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        folder = Path(folder)
        apt = Apt(folder)
        apt.update(SUITES[:1])
        name = PREFERRED
        if not apt.has(name):
            apt.update(SUITES)
            name = apt.newest()
            if name is None:
                raise steps.Trouble(
                    f"none of {', '.join(SUITES)} has a kernel source: give KDIR="
                )
            steps.say(f"{PREFERRED} is gone from {SUITES[0]}; using {name}")
        package = apt.download(name)
        steps.run(["dpkg-deb", "-x", package, folder / "deb"], apt.log, append=True)
        source = next((folder / "deb/usr/src").glob(f"{name}.tar.*"))
        tarball = cache / f"{package.stem.rsplit('_', 1)[0]}.tar{source.suffix}"
        note = tarball.with_name(tarball.name + ".sha256")
        os.replace(source, tarball)
        # Written last: a tarball without it is not trusted.
        note.write_text(file_digest(tarball) + "\n", encoding="ascii")
    return tarball


def unpack(tarball, target):
    """Unpack a tarball; the tree gets its name only when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".unpack-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpack-"))
    try:
        steps.run(["tar", "-xf", tarball, "-C", folder, "--strip-components=1"],
                  steps.log_path("kernel-source"), append=True)
        folder.chmod(0o755)
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own():
    """Return the project's own tree, fetched and unpacked if need be."""
    tree = settings.BUILD / "linux"
    if not tree.exists():
        tarball = cached()
        if tarball is None:
            with steps.step("fetch the kernel source"):
                tarball = fetch()
        with steps.step(f"unpack {tarball.name}"):
            unpack(tarball, tree)
    return tree


def given():
    """Return the tree that KDIR names, checked, or None."""
    settings.arch()
    name = settings.get("KDIR")
    if not name:
        return None
    path = Path(name).expanduser().resolve()
    check(path)
    return path


def tree():
    """Return the source tree to build from, with the overlay on it."""
    path = given()
    packages.need("source" if path is None else "build")
    if path is None:
        path = own()
        check(path)
    try:
        graft.Tree(path).graft()
    except (graft.GraftError, OSError, subprocess.SubprocessError) as error:
        raise steps.Trouble(f"graft: {error}") from error
    return path


def main():
    """Print where the tree is, for people and for other tools."""
    given()
    with steps.alone():
        print(tree())


if __name__ == "__main__":
    steps.main(main)
