# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the crash tests: the kernel, the runner, and what the host's fsync is replaced by."""

import sys
from pathlib import Path

import pytest

import settings
import userland

sys.path.append(str(settings.TESTS / "boot"))


from suite import (  # noqa: E402, F401  pytest finds them by their names
    configure,
    folder_for_disks,
    kernel_to_boot,
    pytest_addoption,
    pytest_collection_modifyitems,
    temporary,
)


def pytest_configure(config):
    """Prepare the run."""
    configure(config)


@pytest.fixture(scope="session")
def programs():
    """The library that QEMU runs with, and the guest's runner."""
    import host  # pylint: disable=import-outside-toplevel
    with temporary() as path:
        runner = userland.compile_static(Path(__file__).with_name("runner.c"), path / "runner")
        yield host.build(path / "host_fsync.so"), runner


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
