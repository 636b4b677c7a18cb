# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the boot tests: the kernel, and guests of two kinds.

boot      makes guests for one test
machine   is a guest that the tests of a module share; a failed test ends it, the next boots anew
"""

import itertools
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import counters  # noqa: E402
import host as hosts  # noqa: E402
from machine import Machine  # noqa: E402

import initramfs  # noqa: E402
import kernel as kernels  # noqa: E402
import settings  # noqa: E402


def pytest_addoption(parser):
    """Add this suite's options."""
    parser.addoption("--built", metavar="DIR", help="boot the kernel that was built in DIR")


def pytest_configure():
    """End in good order when told to, so that no guest and no disk is left behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Of tests that decide at random; in their names, and the same for all workers.
    os.environ["SEED"] = os.environ.get("SEED") or str(random.randrange(10 ** 6))


@pytest.fixture(scope="session")
def kernel(request):
    """The release kernel."""
    built = request.config.getoption("--built")
    if not built:
        return kernels.ready("release")
    found = kernels.Kernel("release", Path(built).resolve())
    initramfs.build(found)
    return found


@pytest.fixture(scope="session")
def library():
    """The library that gives QEMU's fsync into the hands of the tests."""
    settings.BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="boot-test-") as folder:
        yield hosts.build(Path(folder) / "host_fsync.so")


@pytest.fixture(scope="session")
def records():
    """The guest's program that writes numbered records."""
    settings.BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="boot-test-") as folder:
        yield counters.build(Path(folder) / "records")


@pytest.fixture
def folder():
    """A directory for the test's disks, on a real file system."""
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="boot-test-") as path:
        yield Path(path)


@pytest.fixture
def boot(request, kernel, library, folder):
    """A function that boots a guest; more than one in a row find the same disks."""
    turns = itertools.count(1)

    def start(**options):
        options.setdefault("name", f"test-{request.node.name}-{next(turns)}")
        return Machine(kernel, hosts.Host(library, folder), folder, **options)
    return start


@pytest.fixture(scope="module")
def shared(request, kernel, library):
    """The guest that a module's tests share, running or not; DRIVER and MACHINE describe it."""
    options = {"name": f"test-{request.module.__name__}", "timeout": 600}
    options |= getattr(request.module, "MACHINE", {})
    if hasattr(request, "param"):
        options |= {"driver": request.param, "name": f"{options['name']}-{request.param}"}
    with tempfile.TemporaryDirectory(dir=settings.BUILD, prefix="boot-test-") as path:
        machine = Machine(kernel, hosts.Host(library, Path(path)), Path(path), **options)
        yield machine
        machine.close()


@pytest.fixture
def machine(request, shared):
    """The module's guest, alive; its messages are this test's own."""
    if not shared.alive():
        shared.start()
        shared.wait_ready()
    shared.clear_messages()
    before, failed = len(shared.complaints()), request.session.testsfailed
    yield shared
    shared.host.plan("pass")
    complaints = shared.complaints()[before:]
    if complaints or request.session.testsfailed > failed:
        shared.close()
    assert complaints == []
