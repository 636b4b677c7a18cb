# SPDX-License-Identifier: GPL-2.0
"""Variables of make: good values are parsed, bad ones are refused with a remedy."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

import settings
import steps


@pytest.mark.parametrize(("text", "size"), [("512M", 512 << 20), ("1G", 1 << 30), ("4096", 4096)])
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("PMEM_SIZE", text)
    assert settings.size("PMEM_SIZE") == size


@pytest.mark.parametrize("text", ["much", "-1G", "0", "1.5G", "1GB"])
def test_bad_sizes(monkeypatch, text):
    monkeypatch.setenv("MEM", text)
    with pytest.raises(settings.BadSetting, match=r"MEM=.* like 1G"):
        settings.size("MEM")


def test_an_empty_variable_is_not_given(monkeypatch):
    monkeypatch.setenv("DRIVER", "")
    assert settings.choice("DRIVER") == "rust"


def test_bad_choice_names_the_good_ones(monkeypatch):
    monkeypatch.setenv("DRIVER", "go")
    with pytest.raises(settings.BadSetting, match="DRIVER=go.*rust, c, none"):
        settings.choice("DRIVER")
    monkeypatch.setenv("DRIVER", "none")
    with pytest.raises(settings.BadSetting, match="DRIVER=none.*rust, c$"):
        settings.choice("DRIVER", ("rust", "c"))


def test_numbers(monkeypatch):
    assert settings.number("SMP") == 2 and settings.number("TIMEOUT") is None
    monkeypatch.setenv("TIMEOUT", "17")
    assert settings.number("TIMEOUT") == 17


@pytest.mark.parametrize("text", ["two", "0", "-1"])
def test_bad_numbers(monkeypatch, text):
    monkeypatch.setenv("SMP", text)
    with pytest.raises(settings.BadSetting, match=f"SMP={text}: use a positive number"):
        settings.number("SMP")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("", False)])
def test_flags(monkeypatch, text, value):
    monkeypatch.setenv("NO_INSTALL", text)
    assert settings.flag("NO_INSTALL") is value


def test_bad_flag(monkeypatch):
    monkeypatch.setenv("LONG", "maybe")
    with pytest.raises(settings.BadSetting, match="LONG=maybe.*0, 1"):
        settings.flag("LONG")


def test_the_help_names_each_variable():
    done = subprocess.run(["make", "-s", "-C", settings.ROOT, "--no-print-directory", "help"],
                          check=True, capture_output=True, text=True)
    assert set(re.findall(r"^  ([A-Z_\d]+)=", done.stdout, re.M)) == {
        *settings.VARIABLES, "XDG_CACHE_HOME"}


@pytest.mark.parametrize("name", settings.VARIABLES)
def test_make_passes_on_each_variable(tmp_path, name):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nprintf '%s' \"${name}\"\n")
    script.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "-C", settings.ROOT, "--no-print-directory", "boot", f"{name}=value"],
        check=True, env=steps.environment() | {"PYTHON": str(script)}, capture_output=True,
        text=True)
    assert done.stdout == "value"


def test_other_tools_do_not_see_our_variables(monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", "-- O=x")
    monkeypatch.setenv("O", "x")
    monkeypatch.setenv("http_proxy", "y")
    seen = steps.environment()
    assert "MAKEFLAGS" not in seen and "O" not in seen and seen["http_proxy"] == "y"


def test_a_failed_step_shows_the_end_of_its_log(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(steps.Trouble) as failure:
        steps.run(["sh", "-c", "seq 100; echo why >&2; exit 3"], log)
    text = str(failure.value)
    assert "why" in text and "    100\n" in text and "    5\n" not in text and str(log) in text


def test_a_compilers_first_error_is_shown_however_much_follows(tmp_path):
    log = tmp_path / "log"
    log.write_text("CC a.o\nerror[E0308]: mismatched types\n  --> x.rs:1\n" + "CC b.o\n" * 500)
    text = steps.tail(log)
    assert "E0308" in text and "x.rs:1" in text and "CC a.o" not in text
    assert len(text.splitlines()) < 50


def test_an_error_of_the_system_is_no_traceback(monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with pytest.raises(SystemExit) as end:
        steps.main(lambda: settings.cache().mkdir())
    assert end.value.code == 1
    assert "error: /dev/null/virtio-pmem-rust: Not a directory\n" in capsys.readouterr().err


# A tool that needs some time to clean up.
TOOL = "trap 'sleep 0.2; echo ended >end; kill $!; exit' TERM; sleep 600 & echo >begin; wait"
PROGRAM = f"""
import subprocess, time
import steps

class Popen(subprocess.Popen):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        time.sleep(DELAY)

subprocess.Popen = Popen
steps.main(lambda: steps.run(["sh", "-c", {TOOL!r}], "log"))
"""


@pytest.mark.parametrize("delay", [0, 1])
def test_a_terminated_run_waits_for_its_tool(tmp_path, delay):
    """Also when the signal arrives while the tool is being started."""
    environment = os.environ | {"PYTHONPATH": str(settings.ROOT / "scripts")}
    with subprocess.Popen([sys.executable, "-c", f"DELAY = {delay}\n{PROGRAM}"], cwd=tmp_path,
                          env=environment) as process:
        limit = time.monotonic() + 120
        while not (tmp_path / "begin").exists():
            assert time.monotonic() < limit
            time.sleep(0.02)
        process.terminate()
        assert process.wait(120) == 128 + signal.SIGTERM
    assert (tmp_path / "end").exists()
