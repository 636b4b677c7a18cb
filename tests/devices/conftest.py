# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests on the project's own device: see scripts/device.py.

Without LONG=1 each personality is tested on one transport.
"""

import os
import sys
from pathlib import Path

import pytest

import device
import mutant
import qemu
import settings
import steps

sys.path.append(str(settings.TESTS / "boot"))


import suite  # noqa: E402
from suite import (  # noqa: E402, F401  pytest finds them by their names
    folder_for_disks,
    kernel_to_boot,
    pytest_collection_modifyitems,
)


def pytest_addoption(parser):
    """Add this suite's options."""
    suite.pytest_addoption(parser)
    parser.addoption("--module", metavar="FILE", help="with this module instead of its own")


def pytest_configure(config):
    """Choose QEMU, and prepare the run."""
    given = settings.get("QEMU")
    if not given or qemu.VERSION.fullmatch(given):  # a program may be a newer one
        os.environ["QEMU"] = device.QEMU
    suite.configure(config)


@pytest.fixture(scope="session")
def program():
    """The device's program."""
    with steps.alone():
        return device.build()


@pytest.fixture(scope="module")
def make(request, kernel, program):
    """A function that makes a guest with a device; the same folder has the same image."""
    from subject import Subject  # pylint: disable=import-outside-toplevel

    module = request.config.getoption("--module")
    files = mutant.files(module, kernel.out) if module else {}

    def subject(personality, transport, folder, options=None, **more):
        bus = transport.removesuffix("-packed")
        options = (options or {}) | ({"packed": 1} if transport != bus else {})
        served = device.Device(program, folder, personality, bus, options)
        more.setdefault("name", f"devices-{personality}-{transport}")
        if module:
            more["name"] = f"{Path(module).parents[3].name}-mutant-{more['name']}"
            more["timeout"] = 300  # a faulty driver may wait for ever
        return Subject(kernel, served=served, files=files, **more)
    return subject
