# SPDX-License-Identifier: GPL-2.0
"""Keep finished builds in the project's cache folder, so that the next checkout builds nothing.

An archive bears the digest of everything that the build depends on: source, overlay, configuration,
the toolchain's versions and kbuild's variables. No path of the tools' own is part of it. An archive
holds what later steps read, and no objects: a build that continues in a restored directory compiles
all of them.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import kernel_source
import settings
import steps
import toolchain

NEWEST = 8  # archives that are kept of each name
RECIPE = 2  # raise it when the tools build the same inputs in another way
STAMP = ".built"

# What kbuild and its tools read from the environment.
VARIABLES = re.compile(r"\w*FLAGS(_[\w.]+)?|HOSTLDLIBS|(KBUILD|KCONFIG|INSTALL_MOD)_\w+|"
                       r"LOCALVERSION|SOURCE_DATE_EPOCH|W|MAKEFILES|CPATH|C_INCLUDE_PATH|"
                       r"(BINDGEN|(LIB)?CLANG|LLVM|RUSTC)_\w+")


def key(kdir, tools, *parts):
    """Return the digest of a build's inputs, or None for a tree of the user's own.

    Only make can detect what has changed in such a tree.
    """
    if settings.get("KDIR"):
        return None
    variables = sorted((name, value) for name, value in steps.environment().items()
                       if VARIABLES.fullmatch(name))
    inputs = (RECIPE, kernel_source.digest(kdir), toolchain.versions(kdir, tools), variables, parts)
    return hashlib.sha256(repr(inputs).encode()).hexdigest()


def archive(name, digest):
    """Return the path of a build's archive."""
    return settings.cache() / f"builds/{name}-{digest[:32]}.tar.gz"


def restore(path, out):
    """Replace a directory by the content of an archive; return whether that was possible.

    kbuild compares time stamps: the archive's must not stand beside those of another build.
    """
    if not path.exists():
        return False
    out = out.resolve()  # a link cannot be replaced by a directory
    folder = out.with_name(f".restore-{out.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log = steps.log_path("build-cache")
    try:
        # gzip checks a CRC of the whole content.
        steps.run(["tar", "-xzf", path, "-C", folder], log)
        shutil.rmtree(out)
        os.replace(folder, out)
    except steps.Trouble:
        steps.say(f"{path} cannot be unpacked, so this is built again; log: {log}")
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another checkout may remove the archive
        os.utime(path)  # the oldest ones are removed first
    return True


def keep(path, out, parts):
    """Write an archive in one step, and remove those of the same name that are too many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    os.close(handle)
    try:
        steps.run(["tar", "-czf", new, "-C", out, *parts], steps.log_path("build-cache"))
        os.replace(new, path)
    finally:
        Path(new).unlink(missing_ok=True)
    name = path.name.rsplit("-", 1)[0]
    found = sorted(path.parent.glob(f"{name}-*.tar.gz"), key=lambda one: one.stat().st_mtime)
    # A killed run leaves its temporary file behind.
    left = [one for one in path.parent.glob(".new-*")
            if one.stat().st_mtime < time.time() - 24 * 3600]
    for one in [*found[:-NEWEST], *left]:
        one.unlink(missing_ok=True)


def provide(name, inputs, out, parts, build):
    """Have the parts of a build in a directory: the ones that are there, or kept, or built now.

    inputs() returns the build's key. Without one the parts are always built, and never kept.
    """
    digest, stamp = inputs(), out / STAMP
    out.mkdir(parents=True, exist_ok=True)
    if digest and stamp.exists() and stamp.read_text() == digest \
            and all((out / part).exists() for part in parts):
        return
    stamp.unlink(missing_ok=True)
    if digest and restore(archive(name, digest), out):
        steps.say(f"{name}: built before, taken from {archive(name, digest)}")
    else:
        build()
        if digest and inputs() != digest:
            steps.say(f"{name}: not kept for another checkout: its inputs changed meanwhile")
            return
        if digest:
            try:
                keep(archive(name, digest), out, parts)
            except (OSError, steps.Trouble) as error:
                steps.say(f"{name}: not kept for another checkout: {error}")
    if digest:
        stamp.write_text(digest)
