# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the crash tests: the kernel, the runner, and what the host's fsync is replaced by."""

import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import pytest

import kernel as kernels
import settings
import steps

sys.path.append(str(settings.TESTS / "boot"))


def pytest_addoption(parser):
    """Add this suite's options."""
    parser.addoption("--built", metavar="DIR", help="boot the kernel that was built in DIR")


def pytest_configure(config):
    """Register the mark, choose the seed, and end in good order on SIGTERM."""
    config.addinivalue_line("markers", "long: runs with LONG=1 only")
    signal.signal(signal.SIGTERM, steps.interrupted)
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
def programs():
    """The library that QEMU runs with, and the guest's runner."""
    import host  # pylint: disable=import-outside-toplevel
    settings.BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="crash-") as path:
        runner = Path(path) / "runner"
        steps.run(["gcc", "-static", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-o",
                   runner, Path(__file__).with_name("runner.c")], steps.log_path("runner"))
        yield host.build(Path(path) / "host_fsync.so"), runner


@pytest.fixture
def folder():
    """A directory for the test's disks."""
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="crash-") as path:
        yield Path(path)


@pytest.fixture
def boot(request, kernel, programs, folder):
    """A function that makes a guest with the runner; a test's guests have the same disks."""
    from counters import Counters  # pylint: disable=import-outside-toplevel
    from host import Host  # pylint: disable=import-outside-toplevel
    from machine import Machine  # pylint: disable=import-outside-toplevel
    library, runner = programs

    def start(use, sizes, files=None):
        return Machine(kernel, Host(library, folder), folder, sizes=sizes,
                       name=f"{request.node.name}-{use}", args=Counters(folder).args,
                       files={"/bin/runner": runner, **(files or {})})
    return start
