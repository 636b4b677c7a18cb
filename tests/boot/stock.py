# SPDX-License-Identifier: GPL-2.0
"""Which tests run on a distribution's own kernel, with the driver as a module.

Names are those of files, or of tests in them.
"""

# Those of 'make test'; with LONG=1 all run that are not below.
QUICK = (
    "test_stock.py",
    "test_flush.py::test_fsync[rust]",
    "test_flush.py::test_fua[16-rust]",
    "test_flush.py::test_16_writers[rust]",
    "test_unbind.py::test_under_load[rust]",
    "test_removal.py::test_surprise[rust-hangs]",
    "test_power.py::test_suspend_under_load[mem]",
    "test_reset.py::test_needs_reset",
    "test_bad_host.py::test_failed_flush_for_many",
    "test_crash.py::test_crash",
)

# Tests that use FUA or deep_flush, which the kernel has with this parameter only.
WITH_FUA = ("test_flush.py", "test_fua.py", "test_trace.py")
FUA = "virtio_pmem_rust.fua=1"

# Why a test does not run there.
SKIPPED = {
    "test_flush.py::test_deep_flush[c]": "the driver in C has no parameter for deep_flush",
    "test_flush.py::test_waits_for_the_host[c]": "the driver in C has no parameter for deep_flush",
    "test_fua.py::test_advertised[c]": "the driver in C has no parameter for FUA",
    "test_fua.py::test_one_bio[ext4-c]": "the driver in C has no parameter for FUA",
    "test_fua.py::test_one_bio[xfs-c]": "the driver in C has no parameter for FUA",
    "test_flush_order.py": "md sends data and flush at once without its patch",
    "test_leaks.py": "the kernel has no kmemleak",
    "test_memory.py::test_swap": "its guest has too little memory for that kernel",
    "test_namespaces.py::test_every_mode": "sector mode is refused: test_stock.py",
    "test_namespaces.py::test_mode_outlives_power_cut[sector]": "sector mode is refused",
    "test_no_allocation.py": "the kernel has no fault injection",
    "test_power.py::test_hibernation": "it resumes before the module of its disk is loaded",
    "test_suites.py": "the kernel has no KUnit",
    "test_read_only.py": "read_only is refused: test_stock.py",
    "test_reset.py::test_function_reset": "the core reports no reset: test_stock.py",
    "test_sample.py": "the module has the driver alone",
    "test_stacked.py::test_fsync_is_a_bio": "a data-less flush sleeps without its patch",
    "test_stacked.py::test_members_flush_together": "a data-less flush sleeps without its patch",
    "test_trace.py::test_free_when_off": "it reads vmlinux",
    "test_workloads.py::test_fsx": "XFS with DAX and huge pages warns (fs/dax.c), as with C",
}


def matches(item, name):
    """Return whether a name is that of a test, of its file, or begins its name."""
    return f"{item.path.name}::{item.name}".startswith(name)


def is_quick(item):
    """Return whether a test runs without LONG=1."""
    return any(matches(item, name) for name in QUICK)


def reason(item, skipped):
    """Return why a test does not run, of {beginning of a name: why}, or None."""
    return next((why for name, why in skipped.items() if matches(item, name)), None)


def append(kernel, path):
    """Return more words for the command line of a guest of a test file."""
    return FUA if kernel.name == "debian" and path.name in WITH_FUA else ""
