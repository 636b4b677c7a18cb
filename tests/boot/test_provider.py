# SPDX-License-Identifier: GPL-2.0
"""libnvdimm treats flushes by a provider as it promises: KUnit suites, run in a guest.

They need memory of their own, which UML cannot map as a disk. Here the kernel's command line
reserves it, and the suites make a region of it. Beside it is a device with a driver's disk, so that
the core is tested with that driver loaded.
"""

import re

import pytest
from machine import MIB

pytestmark = pytest.mark.only_debug

MODULE = "nvdimm_provider_kunit"
SUITES = {"nvdimm_flush": 3, "pmem_submit_bio": 11}
START, SIZE = 256 * MIB, 4 * MIB


def results(text):
    """Return, for each test in a suite's KTAP output, whether it has passed."""
    found = re.findall(r"^ {4}(not ok|ok) \d+ (\S+)(?: # (SKIP.*))?$", text, re.M)
    return {name: word == "ok" and not skip for word, name, skip in found}


# The core is the same beside both drivers; a debug kernel needs minutes for each.
@pytest.mark.parametrize("driver", ["rust", pytest.param("c", marks=pytest.mark.long)])
def test_suites(boot, driver):
    """Every test of every suite passes."""
    with boot(driver=driver, append=f"memmap={SIZE:#x}${START:#x}") as machine:
        disk = machine.disk(machine.device())
        # Each test makes devices; a process for each of their uevents would only cost time.
        machine.sh(f"""
            echo >/sys/kernel/uevent_helper
            modprobe {MODULE} start={START:#x} size={SIZE:#x}
        """)
        for suite, count in SUITES.items():
            folder = f"/sys/kernel/debug/kunit/{suite}"
            text = machine.sh(f"echo 1 >{folder}/run; cat {folder}/results")
            found = results(text)
            assert len(found) == count, text
            assert all(found.values()), text
        machine.sh(f"rmmod {MODULE}")
        machine.sh(f"xfs_io -c fsync /dev/{disk}")
        machine.check_errors()
