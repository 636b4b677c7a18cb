# SPDX-License-Identifier: GPL-2.0
"""KUnit suites that gain from a guest: its checks are more than UML's, and it can map a region."""

import re

import pytest
from machine import MIB

pytestmark = pytest.mark.only_debug

MODULE = "nvdimm_provider_kunit"
START, SIZE = 256 * MIB, 4 * MIB


def run_suite(machine, suite):
    """Run a suite, all of whose tests must pass; return how many it has."""
    folder = f"/sys/kernel/debug/kunit/{suite}"
    text = machine.sh(f"echo 1 >{folder}/run; cat {folder}/results")
    planned = re.search(r"^ {4}1\.\.(\d+)$", text, re.M)
    assert planned, text
    passed = re.findall(r"^ {4}ok \d+ \S+$", text, re.M)
    assert len(passed) == int(planned[1]), text
    return len(passed)


# The core is the same beside both drivers; a debug kernel needs minutes for each.
@pytest.mark.parametrize("driver", ["rust", pytest.param("c", marks=pytest.mark.long)])
def test_provider(boot, driver):
    """libnvdimm treats flushes by a provider as it promises.

    The suites need memory of their own, which UML cannot map as a disk. Here the kernel's command
    line reserves it, and the suites make a region of it. Beside it is a device with a driver's
    disk, so that the core is tested with that driver loaded.
    """
    with boot(driver=driver, append=f"memmap={SIZE:#x}${START:#x}") as machine:
        disk = machine.disk(machine.device())
        # Each test makes devices; a process for each of their uevents would only cost time.
        machine.sh(f"""
            echo >/sys/kernel/uevent_helper
            modprobe {MODULE} start={START:#x} size={SIZE:#x}
        """)
        assert run_suite(machine, "nvdimm_flush") == 3
        assert run_suite(machine, "pmem_submit_bio") == 11
        machine.sh(f"rmmod {MODULE}")
        machine.sh(f"xfs_io -c fsync /dev/{disk}")
        machine.check_errors()


def test_misuse(boot):
    """A driver in Rust with bugs harms only itself; several processors, KASAN and lockdep watch."""
    with boot(driver="none", sizes=()) as machine:
        machine.sh("echo >/sys/kernel/uevent_helper")
        assert run_suite(machine, "virtio_rust") > 2
