# SPDX-License-Identifier: GPL-2.0
"""The file system exerciser from crates.io/crates/fsx."""

import packages
import settings
import steps
import toolchain

VERSION = "0.3.2"

# The relative frequency of its operations. Two are left out: its sendfile needs a socket, and the
# guests' kernel has no network protocol; its copy_file_range makes XFS share blocks, and for shared
# blocks that are mapped with DAX fs/dax.c warns (7.3.4, dax_disassociate_entry).
CONFIG = """
[weights]
close_open = 0.5
invalidate = 0.2
mapread = 1
mapwrite = 1
read = 1
write = 1
truncate = 1
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 0.5
punch_hole = 0.5
posix_fadvise = 0.2
"""


def build():
    """Install it in the cache, statically linked for the guest; return its path."""
    packages.need("build")
    root = settings.cache() / f"fsx-{VERSION}"
    program = root / "bin/fsx"
    if program.exists():
        return program
    if settings.flag("NO_INSTALL"):
        raise steps.Trouble(f"missing (NO_INSTALL is set): cargo install fsx@{VERSION}")
    with steps.step(f"install fsx {VERSION}"):
        # With a named target, the flags do not apply to build scripts.
        steps.run(
            [toolchain.cargo(), "install", "--locked", "--debug", "fsx", "--version", VERSION,
             "--target", f"{settings.arch()}-unknown-linux-gnu", "--root", root,
             "--target-dir", settings.BUILD / "fsx"],
            steps.log_path("fsx"),
            env={"RUSTFLAGS": "-Ctarget-feature=+crt-static -Cstrip=symbols"},
        )
    return program
