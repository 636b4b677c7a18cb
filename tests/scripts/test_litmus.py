# SPDX-License-Identifier: GPL-2.0
"""Each litmus test names its result, and herd7 must find that one."""

import pytest

import kernel_source
import litmus
import settings
import steps


@pytest.fixture(name="herd")
def a_herd(tmp_path, monkeypatch):
    """Return a function that makes a herd7 with this result for each test."""
    monkeypatch.setattr(kernel_source, "tree", lambda: tmp_path)
    (tmp_path / "tools/memory-model").mkdir(parents=True)

    def make(result):
        program = tmp_path / "herd7"
        program.write_text(f"#!/bin/sh\n{result}\n")
        program.chmod(0o755)
        monkeypatch.setenv("HERD7", str(program))
    return make


@pytest.mark.parametrize("path", litmus.files(), ids=lambda path: path.stem)
def test_each_names_its_result(path):
    assert path.read_text().startswith(f"C {path.stem}\n")
    assert litmus.expected(path) in ("Never", "Sometimes")


def test_each_barrier_is_needed():
    """A test that finds nothing has a counterpart that does."""
    found = {path.stem: litmus.expected(path) for path in litmus.files()}
    for name in [name for name, result in found.items() if result == "Never"]:
        assert "Sometimes" in [result for other, result in found.items()
                               if other.startswith(name.removesuffix("-nolock"))]


def test_another_result_is_a_failure(herd):
    never = sum(litmus.expected(path) == "Never" for path in litmus.files())
    herd("echo 'Observation x Never 0 4'")
    assert litmus.run() == (never, len(litmus.files()) - never)
    herd("echo 'Warning: unexpected word'")
    assert litmus.run() == (0, len(litmus.files()))


def test_without_herd7_the_remedy_is_named(monkeypatch):
    monkeypatch.setenv("HERD7", "/nowhere/herd7")
    with pytest.raises(steps.Trouble, match="herdtools7.*HERD7="):
        litmus.run()


def test_the_default_is_on_the_path():
    assert settings.get("HERD7") == "herd7"
