# SPDX-License-Identifier: GPL-2.0
"""The pieces of a kernel's source that the driver needs, and a check that a tree has them.

The source counts, not the version: the pieces were merged one by one, some reach stable kernels,
and distributions carry patches of their own. So each piece is a place and a pattern, which also
match in a tree with the overlay on it.
"""

import dataclasses
import re
from pathlib import Path

REGION = "drivers/nvdimm/region_devs.c"
PMEM = "drivers/nvdimm/pmem.c"


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of the kernel, and how to recognize it.

    gives     its use, for messages
    path      the file that it is in
    pattern   a regular expression for the code without comments, a space for any white space
    function  the C function whose body has the pattern; without it the whole file is searched
    """
    gives: str
    path: str
    pattern: str
    function: str = ""


PIECES = (
    # libnvdimm.
    Piece("a provider of memory that may complete a bio later (NVDIMM_FLUSH_ASYNC)",
          "include/linux/libnvdimm.h", r"#define NVDIMM_FLUSH_ASYNC 1\b"),
    Piece("nvdimm_flush() that passes on that the provider has taken the bio",
          REGION, r"if \(rc > 0\) return rc;", "nvdimm_flush"),
    Piece("nvdimm_flush() that keeps -ENOMEM",
          REGION, r"rc != -ENOMEM", "nvdimm_flush"),
    Piece("pmem_submit_bio() that writes no data when the flush before it has failed",
          PMEM, r"nvdimm_flush\(nd_region, NULL\); if \(ret\) \{[^}]*bio_endio\(bio\); return; \}",
          "pmem_submit_bio"),
    Piece("pmem_submit_bio() that looks for no data in a bio without any",
          PMEM, r"if \(bio_has_data\(bio\)\) \{.*bio_for_each_segment\(", "pmem_submit_bio"),
    Piece("pmem_submit_bio() that does not flush for a bio that has failed",
          PMEM, r"!bio->bi_status\) \{ ret = nvdimm_flush\(nd_region, bio\);", "pmem_submit_bio"),
    Piece("pmem_submit_bio() that leaves a bio alone when the provider has taken it",
          PMEM, r"if \(ret == NVDIMM_FLUSH_ASYNC\) return;", "pmem_submit_bio"),

    # The kernel crate.
    Piece("Rust's lock for data that interrupts use, too (SpinLockIrq)",
          "rust/kernel/sync/lock/spinlock.rs", r"pub type SpinLockIrq\b"),
    Piece("Rust's driver data that live no longer than the binding (DriverLayout)",
          "rust/kernel/driver.rs", r"type DriverData<'bound>;"),
    Piece("Rust's atomic types",
          "rust/kernel/sync/atomic.rs", r"pub struct Atomic<"),
    Piece("Rust's files in debugfs",
          "rust/kernel/debugfs.rs", r"pub struct Scope<"),
    Piece("Rust's trace events",
          "rust/kernel/tracepoint.rs", r"macro_rules! declare_trace\b"),
    Piece("Rust's sets of flags",
          "rust/kernel/impl_flags.rs", r"macro_rules! impl_flags\b"),
)


def plain(text):
    """Return C or Rust without comments, and one space for any white space."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)
    return re.sub(r"\s+", " ", text)


def body(text, function):
    """Return the definition of a C function, or nothing."""
    found = re.search(rf"^[a-z][^\n;]*\b{function}\([^;{{]*\)\n\{{.*?^\}}", text, re.M | re.S)
    return found[0] if found else ""


def has(tree, piece):
    """Return whether a tree has a piece."""
    try:
        text = (Path(tree) / piece.path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    if piece.function:
        text = body(text, piece.function)
    return bool(re.search(piece.pattern, plain(text)))


def missing(tree):
    """List the pieces that a tree lacks."""
    return [piece for piece in PIECES if not has(tree, piece)]


def explain(tree, pieces):
    """Return the error message for a tree that lacks pieces."""
    lines = [f"{tree}: this kernel lacks pieces that the driver needs:"]
    lines += [f"  {piece.gives}: not in {piece.path}" for piece in pieces]
    return "\n".join(lines)
