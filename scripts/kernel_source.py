# SPDX-License-Identifier: GPL-2.0
"""The kernel source: the user's own tree, or Debian's, fetched and verified.

kernel.pin names the source of Debian's, so that a checkout always builds the same kernel as long as
Debian has it.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import graft
import packages
import pieces
import settings
import steps

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PIN = settings.ROOT / "scripts/kernel.pin"
SUITES = ("trixie-backports", "sid", "experimental")

# A file in the project's own tree: the digest that was asked for, what was unpacked, its digest.
NOTE = ".virtio-pmem-rust.source"

# What is in a tree but not in a kernel, as find's conditions.
NOT_BUILT = [word for path in ("./.*", "./MAINTAINERS", "./Documentation/*", "*/__pycache__/*")
             for word in ("!", "-path", path)]


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
    """Refuse a tree that lacks something, or that kbuild would not build elsewhere."""
    check_pieces(tree)
    if (tree / ".config").exists():
        raise steps.Trouble(
            f"{tree} has been built in place, so kbuild builds nowhere else from it: "
            f"save its .config and run 'make -C {tree} mrproper'"
        )


# Debian's source package

@dataclasses.dataclass(frozen=True)
class Pin:
    """A kernel source of Debian: the name of its tarball in the cache, and its SHA-256."""
    name: str
    sha256: str

    @property
    def package(self):
        """The package and its version, as apt-get names them: linux-source-7.3=7.3.4-1."""
        return self.name.partition(".tar.")[0].replace("_", "=")

    @property
    def path(self):
        """Where the tarball is kept."""
        return settings.cache() / self.name

    def is_kept(self):
        """Return whether the tarball is in the cache, and whole."""
        return self.path.exists() and file_digest(self.path) == self.sha256


def read_pin():
    """Return the pinned source."""
    found = re.findall(r"^([0-9a-f]{64})  (linux-source-[\d.]+_\S+\.tar\.\w+)$",
                       PIN.read_text(encoding="utf-8", errors="replace"), re.M)
    if len(found) != 1:
        raise steps.Trouble(f"{PIN} does not name one kernel source: restore it with git")
    return Pin(found[0][1], found[0][0])


def write_pin(pin):
    """Pin another source."""
    PIN.write_text("# SPDX-License-Identifier: GPL-2.0\n"
                   "# The kernel source: its SHA-256 and name. 'make bump' writes this file.\n"
                   f"{pin.sha256}  {pin.name}\n", encoding="ascii")


class Apt:
    """A private apt configuration: the user's sources and lists stay as they are.

    remedy  what a user may do where nothing can be fetched
    arch    the architecture of the packages, by default this machine's
    """

    def __init__(self, folder, remedy="give a source tree with KDIR=", arch=None):
        self.folder, self.remedy = folder, remedy
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
            *([f"APT::Architecture={arch}", f"APT::Architectures={arch}"] if arch else []),
        ]
        self.log = steps.log_path("kernel-source")

    def command(self, tool, *words):
        """Return the command line of an apt tool with this configuration."""
        return [tool, *(word for option in self.options for word in ("-o", option)), *words]

    def get(self, *words, append=False):
        """Run apt-get; a failure most often means that there is no network."""
        try:
            steps.run(self.command("apt-get", *words), self.log, cwd=self.folder, append=append)
        except steps.Trouble as error:
            raise steps.Trouble(
                f"nothing can be fetched from {MIRROR}: set http_proxy if the network has a proxy, "
                f"or {self.remedy}\n{steps.tail(self.log)}"
            ) from error

    def update(self, suites):
        """Fetch the lists of these suites; apt checks their signature."""
        (self.folder / "etc/sources.list").write_text("".join(
            f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n" for suite in suites
        ), encoding="ascii")
        self.get("update", "--error-on=any")

    def newest(self):
        """Return the newest source package and its version, as apt-get names them, or None."""
        names = (steps.output(self.command("apt-cache", "pkgnames", "linux-source-")) or "").split()
        found = [tuple(map(int, m[1].split("."))) for m in
                 (re.fullmatch(r"linux-source-(\d+\.\d+)", name) for name in names) if m]
        if not found:
            return None
        name = f"linux-source-{'.'.join(map(str, max(found)))}"
        text = steps.output(self.command("apt-cache", "policy", name)) or ""
        return f"{name}={re.search(r'Candidate: (.*)', text)[1]}"

    def has(self, package):
        """Return whether a package, or one version of it, is in the lists."""
        return bool(steps.output(self.command("apt-cache", "show", package)))

    def download(self, package):
        """Download a package; apt checks it against the signed lists."""
        self.get("download", package, append=True)
        return only(self.folder, f"{package.partition('=')[0]}_*.deb")


def only(folder, pattern):
    """Return the file of a pattern in a package or download."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise steps.Trouble(f"Debian's package has changed: {len(found)} files are {pattern}, not "
                            "one; give a source tree with KDIR=")
    return found[0]


def file_digest(path):
    """Return a file's SHA-256."""
    value = hashlib.sha256()
    with open(path, "rb") as data:
        while block := data.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def check_fetching():
    """Refuse a machine on which Debian's source cannot be fetched."""
    packages.need("source")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise steps.Trouble(
            "the kernel source is fetched with apt-get and dpkg-deb, which are not there: "
            "give a source tree of Linux 7.3 or newer with KDIR="
        )
    if not Path(KEYRING).exists():
        raise steps.Trouble(f"{KEYRING} is missing: install debian-archive-keyring")


def extract(apt, package, sha256=None):
    """Download a source package and keep its tarball in the cache; return what it is."""
    deb = apt.download(package)
    content = apt.folder / "deb"
    steps.run(["dpkg-deb", "-x", deb, content], apt.log, append=True)
    source = only(content, "usr/src/linux-source-*.tar.*")
    found = Pin(f"{package.replace('=', '_')}.tar{source.suffix}", file_digest(source))
    if sha256 not in (None, found.sha256):
        raise steps.Trouble(f"{package} is not what {PIN.name} asks for, its SHA-256 is "
                            f"{found.sha256}: run 'make bump', or restore {PIN.name}")
    os.replace(source, found.path)
    return found


@contextlib.contextmanager
def private_apt(**more):
    """Provide an Apt in a temporary folder of the cache."""
    settings.cache().mkdir(parents=True, exist_ok=True)
    for left in settings.cache().glob(".fetch-*"):
        with contextlib.suppress(FileNotFoundError):  # another run may remove it
            if left.stat().st_mtime < time.time() - 24 * 3600:  # of a killed run
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=settings.cache(), prefix=".fetch-") as folder:
        yield Apt(Path(folder), **more)


def fetch(pin):
    """Download the pinned source, or find the newest one if Debian no longer has it."""
    check_fetching()
    with private_apt() as apt:
        for suites in (SUITES[:1], SUITES):
            apt.update(suites)
            if apt.has(pin.package):
                return extract(apt, pin.package, pin.sha256)
        package = apt.newest()
        if package is None:
            raise steps.Trouble(f"none of {', '.join(SUITES)} has a kernel source: give KDIR=")
        for path in settings.cache().glob(f"{package.replace('=', '_')}.tar.?z"):
            return Pin(path.name, file_digest(path))  # another checkout has downloaded it
        return extract(apt, package)


def newer(pin):
    """Return the newest source of the first suite, downloaded, or None if it is the pinned one."""
    check_fetching()
    with private_apt() as apt:
        apt.update(SUITES[:1])
        package = apt.newest()
        if package is None:
            raise steps.Trouble(f"{SUITES[0]} has no kernel source: try again when it has one")
        if package == pin.package and pin.is_kept():
            return None
        found = extract(apt, package)
        return None if found == pin else found


def unpack(tarball, target, note=""):
    """Unpack a tarball; the tree gets its name only when it is whole, with a note of its origin."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".unpack-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpack-"))
    try:
        steps.run(["tar", "-xf", tarball, "-C", folder, "--strip-components=1"],
                  steps.log_path("kernel-source"), append=True)
        folder.chmod(0o755)
        (folder / NOTE).write_text(note, encoding="ascii")
        if target.exists():
            old = target.with_name(f"{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
            steps.say(f"the former tree, with any changes in it, is now {old}")
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own():
    """Return the project's own tree; fetch and unpack it first if it is missing."""
    tree, pin = settings.BUILD / "linux", read_pin()
    try:
        wanted, name, _ = (tree / NOTE).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        wanted = None
    if wanted != pin.sha256:
        found = pin
        if not pin.is_kept():
            with steps.step("fetch the kernel source"):
                found = fetch(pin)
        with steps.step(f"unpack {found.name}"):
            unpack(found.path, tree, f"{pin.sha256} {found.name} {found.sha256}\n")
        name = found.name
        for path in settings.cache().glob("linux-source-*"):
            if path.name not in (pin.name, name):
                path.unlink(missing_ok=True)
    if name != pin.name:
        steps.say(f"Debian no longer has {pin.package}, which {PIN.name} names; {name} is used "
                  "instead")
    return tree


def digest(tree):
    """Return the digest of the project's own tree: its tarball, and all that has changed since."""
    value = hashlib.sha256((tree / NOTE).read_text(encoding="ascii").split()[2].encode())
    # Unpacked files have the time stamps of the tarball, which are older than the note. A list of
    # them is enough: it lacks a deleted file, and a copied one has another size or time.
    lines = steps.output(["find", ".", "!", "-type", "d", *NOT_BUILT,
                          "(", "-newer", NOTE, "-type", "f", "-printf", "./%P\n", "-o",
                          "-printf", "%P %s %T@ %l\n", ")"], cwd=tree)
    if lines is None:
        raise steps.Trouble(f"{tree}: its files cannot be listed; remove it, and it is made again")
    for line in sorted(lines.splitlines()):
        if line.startswith("./"):
            line += f" {file_digest(tree / line)}"
        value.update(f"{line}\n".encode())
    return value.hexdigest()


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
    """Print the path of the tree."""
    given()
    with steps.alone():
        print(tree())


if __name__ == "__main__":
    steps.main(main)
