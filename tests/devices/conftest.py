# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests on the project's own device: see scripts/device.py.

Without LONG=1 each personality is tested on one transport.
"""

import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import pytest

import device
import kernel as kernels
import mutant
import qemu
import settings
import steps

sys.path.append(str(settings.TESTS / "boot"))


def pytest_addoption(parser):
    """Add this suite's options."""
    parser.addoption("--built", metavar="DIR", help="boot the kernel that was built in DIR")
    parser.addoption("--module", metavar="FILE", help="with this module instead of its own")


def pytest_configure(config):
    """Register the mark, choose QEMU and the seed, and end in good order on SIGTERM."""
    config.addinivalue_line("markers", "long: runs with LONG=1 only")
    signal.signal(signal.SIGTERM, steps.interrupted)
    given = settings.get("QEMU")
    if not given or qemu.VERSION.fullmatch(given):  # a program may be a newer one
        os.environ["QEMU"] = device.QEMU
    try:
        settings.flag("LONG")
        os.environ["SEED"] = str(settings.number("SEED") or random.randrange(1, 10 ** 6))
    except settings.BadSetting as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_modifyitems(config, items):
    """Deselect long tests."""
    out = [item for item in items if item.get_closest_marker("long")]
    if out and not settings.flag("LONG"):
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


@pytest.fixture(scope="session")
def kernel(request):
    """The kernel to boot."""
    built = request.config.getoption("--built")
    if not built:
        return kernels.ready("release")
    return kernels.bootable(Path(built).resolve())


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


@pytest.fixture
def folder():
    """A directory for the test's image."""
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="devices-") as path:
        yield Path(path)
