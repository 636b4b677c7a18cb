# SPDX-License-Identifier: GPL-2.0
"""The root file system in which guests run xfstests: the suite, and packages of this host.

Only the suite is built: the programs are those of installed packages, with all packages that these
depend on. The image is kept in the cache, as finished kernels are.
"""

import functools
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import build_cache
import packages
import settings
import steps

SOURCE = "https://git.kernel.org/pub/scm/fs/xfs/xfstests-dev.git"
REMEDY = f"git clone {SOURCE}, and give its path (or an archive's) with XFSTESTS="

RECIPE = 1  # raise it when another image is made of the same inputs
SIZE = 1 << 30
FAMILIES = ("generic", "ext4", "xfs")
PARTS = ("root.ext4", "groups")

# What the suite's scripts call, and what its programs are linked with.
PACKAGES = (
    "acl", "attr", "base-files", "bash", "bc", "bsdextrautils", "coreutils", "dash", "diffutils",
    "dmsetup", "e2fsprogs", "file", "findutils", "fio", "gawk", "grep", "gzip", "hostname",
    "kmod", "libaio-dev", "libc-bin", "libcap2-bin", "libpam-modules", "liburing-dev", "mount",
    "perl", "procps", "psmisc", "sed", "tar", "util-linux", "uuid-runtime", "xfsprogs", "xz-utils",
)
STATUS = "${db:Status-Abbrev}\t${Pre-Depends}, ${Depends}\t${Provides}\t${Package}\t${Version}\n"
UNUSED = ("usr/include", "usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man")
NOT_RUN = ("*.o", "*.lo", "*.c", ".libs", ".git")

USERS = {"root": 0, "daemon": 1, "bin": 2, "fsgqa": 1000, "fsgqa2": 1001, "123456-fsgqa": 1002}
FILES = {
    "passwd": "".join(f"{name}:x:{number}:{number}::/root:/bin/bash\n"
                      for name, number in USERS.items()),
    "group": "".join(f"{name}:x:{number}:\n" for name, number in [*USERS.items(), ("sys", 3)]),
    "nsswitch.conf": "passwd: files\ngroup: files\n",
    "pam.d/su": "".join(f"{kind} sufficient pam_permit.so\n"
                        for kind in ("auth", "account", "session")),
    "fstab": "",
}


def closure(status, names):
    """Return {package: version} of packages and all that they depend on, of dpkg's status."""
    versions, needs, provided = {}, {}, {}
    for line in status.splitlines():
        state, depends, provides, name, version = line.split("\t")
        if not state.startswith("ii"):
            continue
        versions[name] = version
        needs[name] = [re.findall(r"(?:^|\|)\s*([\w.+-]+)", group) for group in depends.split(",")]
        for virtual in re.findall(r"(?:^|,)\s*([\w.+-]+)", provides):
            provided.setdefault(virtual, name)
    missing = [name for name in names if name not in versions]
    if missing:
        raise steps.Trouble(f"not installed: {' '.join(missing)}")
    found, left = {}, list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = versions[name]
        for choices in needs[name]:
            there = [one if one in versions else provided.get(one) for one in choices]
            left.extend([one for one in there if one][:1])
    return dict(sorted(found.items()))


def installed():
    """Return the packages of the root, with their versions."""
    status = steps.output(["dpkg-query", "-W", "-f", STATUS])
    if status is None:
        raise steps.Trouble("xfstests runs with packages that dpkg has installed: use Debian")
    return closure(status, PACKAGES)


def given():
    """Return the checkout or archive of the suite."""
    path = Path(settings.get("XFSTESTS")).expanduser().resolve()
    if not settings.get("XFSTESTS"):
        raise settings.BadSetting(f"XFSTESTS= is not given: {REMEDY}")
    if not path.exists():
        raise settings.BadSetting(f"XFSTESTS={path} does not exist: {REMEDY}")
    return path


def digest(path):
    """Return the digest of an archive, or of the files of a checkout."""
    value = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        name = file.relative_to(path)
        if ".git" not in name.parts and file.is_file():
            value.update(f"{name}\0{file.stat().st_size}\0".encode())
            value.update(file.read_bytes())
    return value.hexdigest()


def key(path):
    """Return the digest of all that the image is made of."""
    inputs = (RECIPE, SIZE, digest(path), installed(), FILES)
    return hashlib.sha256(repr(inputs).encode()).hexdigest()


def unpack(path, folder, log):
    """Copy a checkout, or unpack an archive; return where the suite is."""
    if path.is_dir():
        shutil.copytree(path, folder / "suite", symlinks=True,
                        ignore=shutil.ignore_patterns(".git"))
    else:
        steps.run(["tar", "-xf", path, "-C", folder], log)
    for check in sorted(folder.rglob("check")):
        if (check.parent / "tests/generic").is_dir():
            return check.parent
    raise settings.BadSetting(f"XFSTESTS={path} holds no xfstests: {REMEDY}")


def groups(suite):
    """Return a line for each case of the suite: its name and its groups."""
    lines = []
    for family in FAMILIES:
        text = (suite / "tests" / family / "group.list").read_text(encoding="utf-8")
        lines += [f"{family}/{line}\n" for line in text.splitlines() if re.match(r"\d", line)]
    return "".join(lines)


def fill(tree, suite, log):
    """Make a root: packages, the suite, and directories to mount on."""
    for part in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / part).mkdir(parents=True)
        (tree / part).symlink_to(f"usr/{part}")
    listed = steps.output(["dpkg-query", "-L", *installed()]) or ""
    names = sorted({line for line in listed.splitlines() if line.startswith("/")})
    files = tree.parent / "files"
    files.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    # Some systems install packages without documentation.
    steps.run(["sh", "-c", 'tar -C / --no-recursion --ignore-failed-read -cf - "$@" | '
               'tar -C "$0" --keep-directory-symlink --no-same-owner -xf -', tree,
               *(f"--exclude=/{path}" for path in UNUSED), "-T", files], log, append=True)
    for name, target in ("awk", "gawk"), ("logger", "true"):
        (tree / "usr/bin" / name).unlink(missing_ok=True)
        (tree / "usr/bin" / name).symlink_to(target)
    for name, text in FILES.items():
        (tree / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "etc" / name).write_text(text, encoding="ascii")
    (tree / "etc/mtab").symlink_to("/proc/mounts")
    for part in ("dev", "proc", "sys", "tmp", "run", "root", "results", "mnt/test", "mnt/scratch",
                 "lib/modules"):
        (tree / part).mkdir(parents=True, exist_ok=True)
    shutil.copytree(suite, tree / "xfstests", symlinks=True,
                    ignore=shutil.ignore_patterns(*NOT_RUN))


def build(path, out):
    """Build the suite, and pack the image."""
    log = steps.log_path("xfstests-build")
    with steps.step("xfstests"), tempfile.TemporaryDirectory(dir=out, prefix="build-") as folder:
        suite, tree = unpack(path, Path(folder), log), Path(folder) / "root"
        steps.run(["make", "-C", suite, f"-j{os.cpu_count()}"], log, append=True)
        (out / "groups").write_text(groups(suite), encoding="utf-8")
        fill(tree, suite, log)
        # The files belong to root there, whichever user makes the image.
        user = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        image = Path(folder) / "root.ext4"
        steps.run([*user, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image,
                   f"{SIZE >> 10}k"], log, append=True)
        image.replace(out / image.name)


def ready():
    """Return the directory that holds the image and the list of cases, made if need be."""
    path = given()
    packages.need("build", "guest", "xfstests")
    out = settings.out("xfstests") / "root"
    with steps.alone():
        build_cache.provide("xfstests", functools.partial(key, path), out, PARTS,
                            functools.partial(build, path, out))
    return out
