# SPDX-License-Identifier: GPL-2.0
"""Where the programs of guests come from."""

import os
import platform
from pathlib import Path

import pytest

import architecture
import steps
import userland

HERE = f"{platform.machine()}-linux-gnu"


def test_libraries_are_those_that_the_loader_finds():
    program = userland.Host.program("ls")
    found = {Path(path).resolve() for path in userland.Host.libraries(program)}
    assert found
    read = userland.Root(Path("/"), HERE).libraries(program)
    assert {path.resolve() for path in read.values()} == found


def test_links_stay_in_the_root(tmp_path):
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/tool-1").write_text("")
    (tmp_path / "usr/bin/tool").symlink_to("/usr/bin/tool-1")
    (tmp_path / "usr/bin/other").symlink_to("tool")
    root = userland.Root(tmp_path, HERE)
    assert root.program("other") == tmp_path / "usr/bin/tool-1"
    assert root.program("missing") is None


def test_a_missing_library_is_named(tmp_path):
    program = userland.Host.program("ls")
    with pytest.raises(steps.Trouble, match=r"needs lib\S+, which no package has"):
        userland.Root(tmp_path, HERE).libraries(program)


def test_the_system_is_that_of_the_guests(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native, other = (("x86_64", "arm64") if os.uname().machine == "x86_64" else
                     ("arm64", "x86_64"))
    monkeypatch.setenv("ARCH", native)
    assert isinstance(userland.system(), userland.Host)
    monkeypatch.setenv("ARCH", other)
    (tmp_path / f"virtio-pmem-rust/guest-{other}-{userland.SUITE}").mkdir(parents=True)
    assert userland.system().triple == architecture.ARCHITECTURES[other].triple
