# SPDX-License-Identifier: GPL-2.0
"""Each personality finds a fault of the driver that another one does not find."""

import os
import subprocess
import sys
import xml.etree.ElementTree

import pytest

import mutant
import settings

# The tests that find the fault, and another personality that has the same tests and passes them.
CASES = {
    "qemu": ("test_hosts.py", "pci", "empty_kicks", "crosvm-pci"),
    "firecracker": ("test_hosts.py", "mmio", "file_system", "remote-mmio"),
    "cloud-hypervisor": ("test_hosts.py", "pci", "probe", "qemu-pci"),
    "crosvm": ("test_hosts.py", "pci", "probe", "cloud-hypervisor-pci"),
    "openvmm": ("test_hosts.py", "pci-packed", "probe", "qemu-pci"),
    "remote": ("test_hosts.py", "mmio", "arrival", "firecracker-mmio"),
    "snapshot": ("test_bad_hosts.py", "pci", "late_answer", "qemu-pci"),
    "hostile": ("test_bad_hosts.py", "pci", "hostile", "snapshot-pci"),
}

# What the others run if their tests have other names.
OTHERWISE = {"snapshot": ("test_hosts.py", "file_system"),
             "hostile": ("test_bad_hosts.py", "answer_twice")}

# A seed with which the hostile personality uses a status that does not exist.
SEED = "7"

pytestmark = pytest.mark.long


def failures(folder, kernel, module, file, names):
    """Run tests with a module; return how many ran, and the names of those that failed."""
    report = folder / "report.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--built={kernel.out}",
         f"--module={module}", f"--junitxml={report}", "-k", names,
         settings.TESTS / "devices" / file],
        env={**os.environ, "LONG": "0", "SEED": SEED},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout
    cases = list(xml.etree.ElementTree.parse(report).getroot().iter("testcase"))
    return len(cases), [case.get("name") for case in cases
                        if case.find("failure") is not None or case.find("error") is not None]


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{name}-{case[1]}")
                                  for name, case in CASES.items()])
def test_mutant(kernel, folder, name):
    """The personality's tests fail, those of another one pass."""
    module = mutant.build(name, kernel.out)
    file, transport, tests, other = CASES[name]
    _, failed = failures(folder, kernel, module, file, f"{name}-{transport} and ({tests})")
    assert failed
    file, tests = OTHERWISE.get(name, (file, tests))
    ran, failed = failures(folder, kernel, module, file, f"{other} and ({tests})")
    assert ran and not failed
