# SPDX-License-Identifier: GPL-2.0
"""What the suites of tests in guests have in common, for their conftest.py."""

import contextlib
import os
import random
import signal
import tempfile
from pathlib import Path

import pytest

import kernel as kernels
import settings
import steps


def pytest_addoption(parser):
    """Add the option that each suite has."""
    parser.addoption("--built", metavar="DIR", help="boot the kernel that was built in DIR")


def configure(config, *marks):
    """Register marks, choose the seed, and end in good order on SIGTERM: leave no guest behind."""
    for mark in (*marks, "long: runs with LONG=1 only"):
        config.addinivalue_line("markers", mark)
    signal.signal(signal.SIGTERM, steps.interrupted)
    try:
        settings.flag("LONG")
        # For the randomized tests; in their names, and the same for all workers.
        os.environ["SEED"] = str(settings.number("SEED") or random.randrange(1, 10 ** 6))
    except settings.BadSetting as error:
        raise pytest.UsageError(str(error)) from error


def deselect(config, items, out):
    """Take tests out of the run."""
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def pytest_collection_modifyitems(config, items):
    """Deselect long tests."""
    if not settings.flag("LONG"):
        deselect(config, items, [item for item in items if item.get_closest_marker("long")])


@contextlib.contextmanager
def temporary():
    """Make a directory on a real file system, and remove it."""
    settings.BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="guests-") as path:
        yield Path(path)


@pytest.fixture(name="folder")
def folder_for_disks():
    """A directory for the test's disks."""
    with temporary() as path:
        yield path


@pytest.fixture(scope="session", name="kernel")
def kernel_to_boot(request):
    """The kernel to boot."""
    built = request.config.getoption("--built")
    if not built:
        return kernels.ready("release")
    return kernels.bootable(Path(built).resolve())
