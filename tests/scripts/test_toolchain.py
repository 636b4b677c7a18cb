# SPDX-License-Identifier: GPL-2.0
"""Tools are found, and those that are too old are not used."""

import pytest

import packages
import steps
import toolchain


@pytest.mark.parametrize(("llvm", "tool"), [
    ("1", "llvm-cov"), ("-19", "llvm-cov-19"), ("/usr/lib/llvm-19/bin/",
                                                "/usr/lib/llvm-19/bin/llvm-cov"),
])
def test_tools_of_llvm(llvm, tool):
    assert toolchain.llvm_tool(llvm, "llvm-cov") == tool


@pytest.mark.parametrize(("version", "taken"), [("1.70.0", False), ("1.85.0", True),
                                                ("1.100.1", True)])
def test_old_cargo_is_not_taken(tmp_path, monkeypatch, version, taken):
    (tmp_path / "cargo").write_text(f"#!/bin/sh\necho 'cargo {version} (abc 2025-01-01)'\n")
    (tmp_path / "cargo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ("cargo" in toolchain.cargos()) is taken


@pytest.fixture(name="installed")
def make_installed(monkeypatch):
    """A distribution whose cargo has a number in its name; the packages that are installed."""
    names = []
    monkeypatch.setattr(packages, "refresh", lambda: None)
    monkeypatch.setattr(packages, "candidate",
                        lambda name: "1.91.0" if name.endswith("-1.91") else None)
    monkeypatch.setattr(packages, "install", names.extend)
    return names


def test_cargo_is_found_where_it_was_installed(installed, monkeypatch):
    monkeypatch.setattr(toolchain, "cargos", lambda: [f"/usr/bin/{name}" for name in installed])
    assert toolchain.cargo() == "/usr/bin/cargo-1.91"
    assert installed == ["cargo-1.91"]


def test_no_cargo_is_an_error_with_a_remedy(installed, monkeypatch):
    monkeypatch.setattr(toolchain, "cargos", list)
    with pytest.raises(steps.Trouble, match=r"1\.85 or newer: install"):
        toolchain.cargo()
    assert installed
