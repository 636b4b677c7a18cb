# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the boot tests: the kernel, and guests of two kinds.

boot      makes guests for one test
machine   is a guest that the tests of a module share; a failed test ends it, the next boots again

The kernel and LONG=1 in the environment select the tests. Without a mark a test runs on the release
kernel, and with LONG=1 on the debug kernel, too. stock.py lists those for Debian's kernel, arm64.py
those that cannot run there. Marks:

on_debug    runs on the debug kernel, too
only_debug  runs on the debug kernel alone: it needs its checks or its faults
only_stock  runs on Debian's kernel alone
long        runs with LONG=1 only
"""

import itertools
from pathlib import Path

import arm64
import counters
import fsx as exerciser
import host as hosts
import pytest
import stock
import suite
from machine import Machine, lent
from suite import (  # noqa: F401  pytest finds them by their names
    folder_for_disks,
    kernel_to_boot,
    pytest_addoption,
)

import architecture
import settings


def pytest_configure(config):
    """Prepare the run."""
    suite.configure(config, "on_debug: runs on the debug kernel, too",
                    "only_debug: runs on the debug kernel alone",
                    "only_stock: runs on Debian's kernel alone")


def kernel_name(config):
    """Return the name of the kernel to boot, which is that of its build directory."""
    built = config.getoption("--built")
    name = Path(built).resolve().name.removesuffix(architecture.suffix()) if built else "release"
    names = settings.VARIABLES["KERNEL"].choices
    if name not in names:
        raise pytest.UsageError(f"--built={built}: the directory's name must be one of "
                                f"{', '.join(names)}")
    return name


def wanted(item, kernel, long):
    """Return whether a test is to run."""
    marks = {mark.name for mark in item.iter_markers()}
    if "long" in marks and not long or "only_stock" in marks and kernel != "debian":
        return False
    if kernel == "debug":
        return long or bool(marks & {"on_debug", "only_debug"})
    if kernel == "debian" and not (long or stock.is_quick(item)):
        return False
    return "only_debug" not in marks


def pytest_collection_modifyitems(config, items):
    """Deselect tests for another kernel, and long ones."""
    name, long = kernel_name(config), settings.flag("LONG")
    skipped = {**(stock.SKIPPED if name == "debian" else {}),
               **(arm64.SKIPPED if settings.arch() == "arm64" else {})}
    out = [item for item in items if not wanted(item, name, long)]
    for item in items:
        if why := stock.reason(item, skipped):
            item.add_marker(pytest.mark.skip(reason=why))
    suite.deselect(config, items, out)


@pytest.fixture(scope="session")
def library():
    """The library through which tests control QEMU's fsync."""
    with suite.temporary() as path:
        yield hosts.build(path / "host_fsync.so")


@pytest.fixture(scope="session")
def records():
    """The program of the guest that writes numbered records."""
    with suite.temporary() as path:
        yield counters.build(path / "records")


@pytest.fixture(scope="session")
def fsx():
    """The file system exerciser."""
    return exerciser.build()


@pytest.fixture
def boot(request, kernel, library, folder):
    """A function that boots a guest; a test's guests have the same disks, one after the other."""
    turns = itertools.count(1)

    def start(append="", **options):
        options.setdefault("name", f"test-{request.node.name}-{next(turns)}")
        options["append"] = f"{append} {stock.append(kernel, request.path)}"
        return Machine(kernel, hosts.Host(library, folder), folder, **options)
    return start


@pytest.fixture(scope="module")
def shared(request, kernel, library):
    """The guest that a module's tests share, running or not; the module's MACHINE describes it."""
    options = {"name": f"test-{request.module.__name__}"}
    options |= getattr(request.module, "MACHINE", {})
    if hasattr(request, "param"):
        options |= {"driver": request.param, "name": f"{options['name']}-{request.param}"}
    options["append"] = f"{options.get('append', '')} {stock.append(kernel, request.path)}"
    with suite.temporary() as path:
        machine = Machine(kernel, hosts.Host(library, path), path, **options)
        yield machine
        machine.close()


@pytest.fixture
def machine(request, shared):
    """The module's guest, running; its messages are only this test's."""
    with lent(shared, request.session) as guest:
        yield guest
        guest.host.plan("pass")
