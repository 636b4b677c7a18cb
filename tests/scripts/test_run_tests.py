# SPDX-License-Identifier: GPL-2.0
"""The variables of make reach the tests unchanged; bad ones are refused at once."""

import os
import subprocess
import sys

import pytest

import kunit
import python_env
import run_tests
import settings
import steps


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    """Keep away from the project's own logs and reports."""
    monkeypatch.setattr(settings, "BUILD", tmp_path)
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")


def run(monkeypatch, *parts):
    """Run the tool."""
    monkeypatch.setattr(sys, "argv", ["run_tests", *parts])
    return run_tests.main()


def test_variables_reach_the_tests(tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(
        "import os\n\ndef test_it():\n    assert os.environ['ACCEL'] == 'kvm'\n"
        "    assert 'MAKEFLAGS' not in os.environ and 'QEMU' not in os.environ\n")
    monkeypatch.setattr(python_env, "python", lambda: sys.executable)
    monkeypatch.setenv("MAKEFLAGS", "-k")
    monkeypatch.setenv("ACCEL", "kvm")
    assert run_tests.pytest("it", tmp_path) == (1, 0)


def test_bad_tree_is_refused_before_kernels_are_configured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run_tests.packages, "need", pytest.fail)
    monkeypatch.setenv("KDIR", str(tmp_path))
    assert run(monkeypatch, "builds") == 1
    assert f"KDIR={tmp_path}: no kernel source tree" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["LONG=maybe", "NO_INSTALL=yes", "SEED=abc", "SEED=0"])
def test_bad_settings_are_refused_at_once(monkeypatch, setting):
    monkeypatch.setitem(run_tests.PARTS, "model", pytest.fail)
    monkeypatch.setenv(*setting.split("="))
    with pytest.raises(settings.BadSetting, match=setting):
        run(monkeypatch, "model")


@pytest.mark.parametrize(("long", "out"), [("", {"debug-test", "xfstests"}),
                                           ("0", {"debug-test", "xfstests"}),
                                           ("1", {"only-debug"})])
def test_the_long_run_is_optional(monkeypatch, long, out):
    monkeypatch.setenv("LONG", long)
    assert set(run_tests.PARTS) - set(run_tests.wanted()) == out


def test_each_part_has_a_target():
    text = (settings.ROOT / "Makefile").read_text()
    names = {"scripts": "scripts-test"}
    for part in run_tests.PARTS:
        assert f"\n{names.get(part, part)}:\n" in text


def test_random_tests_begin_with_the_seed(monkeypatch):
    assert kunit.random_seed() == []
    monkeypatch.setenv("SEED", "17")
    assert kunit.random_seed() == ["pmem_random_kunit.seed=17"]


def test_pattern_of_suites(monkeypatch):
    """Without ONLY all suites run."""
    monkeypatch.delenv("ONLY", raising=False)
    assert kunit.only() == []
    monkeypatch.setenv("ONLY", "virtio_pmem_*")
    assert kunit.only() == ["virtio_pmem_*"]


@pytest.mark.parametrize("name", ["RUN", "QEMU_ARGS"])
@pytest.mark.parametrize("given", ["command line", "environment"])
def test_make_leaves_command_lines_as_they_are(tmp_path, name, given):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nprintf '%s' \"${name}\"\n")
    script.chmod(0o755)
    text = "for i in 1 2; do echo $i $HOME \"$(id)\" '#' $$; done"
    words, variables = ([f"{name}={text}"], {}) if given == "command line" else ([], {name: text})
    done = subprocess.run(
        ["make", "-s", "-C", settings.ROOT, "--no-print-directory", "guest", *words], check=True,
        env=steps.environment() | {"PYTHON": str(script)} | variables, capture_output=True,
        text=True)
    assert done.stdout == text


def test_the_long_run_repeats_a_part_elsewhere(monkeypatch):
    def part(name):
        ran.append((name, os.environ.get("QEMU"), os.environ.get("ARCH")))
        return 2, 1

    others = ("QEMU", "10.0"), ("ARCH", "arm64")
    for variables, counts, names in (
            ({}, (2, 1), [("x", None, None)]),
            ({"LONG": "1"}, (6, 3), [("x", None, None), ("x-10.0", "10.0", None),
                                     ("x-arm64", None, "arm64")]),
            ({"LONG": "1", "QEMU": "11.1"}, (2, 1), [("x", "11.1", None)])):
        ran = []
        with monkeypatch.context() as context:
            for name, value in variables.items():
                context.setenv(name, value)
            assert run_tests.elsewhere(part, "x", *others) == counts
        assert ran == names
