# SPDX-License-Identifier: GPL-2.0
"""Guests end when they have to, with all that was started for them; how one is asked for."""

import time
from pathlib import Path

import pytest

import accel
import guest
import kernel
import settings
import steps

# Seconds after which what is waited for counts as hung.
LIMIT = 120


@pytest.fixture(name="start", autouse=True)
def make_start(tmp_path, monkeypatch):
    """A function that starts a guest with a script in QEMU's place; see started()."""
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def start(script, timeout):
        monkeypatch.setattr(guest.Guest, "command",
                            lambda _: ["sh", "-c", f"echo $$ >{tmp_path}/0; {script}"])
        monkeypatch.setattr(guest.Guest, "connect", lambda _: None)
        found = guest.Guest(kernel.Kernel("release", tmp_path), timeout=timeout)
        found.start()
        return found
    return start


def runs(pid):
    """Tell whether a process runs; whose parent has died may wait for init to take note."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def until(condition):
    """Wait until something is so; a busy machine takes its time."""
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def is_started(tmp_path):
    """Tell whether the process that stands for QEMU is there."""
    return (tmp_path / "1").exists() and (tmp_path / "1").read_text().strip()


def started(tmp_path):
    """Return the number of the process that stands for QEMU, once it is there."""
    until(lambda: is_started(tmp_path))
    return int((tmp_path / "1").read_text())


def test_the_limit_ends_what_a_wrapper_has_started(start, tmp_path):
    # A busy machine may not have come to the process before the limit is over.
    for limit in (1, 5, 25):
        found = start(f"sleep 600 & echo $! >{tmp_path}/1; wait", limit)
        assert found.wait(LIMIT)
        if is_started(tmp_path):
            break
        found.close()
    pid = started(tmp_path)
    until(lambda: not runs(pid))
    found.close()


def test_what_outlives_its_wrapper_is_killed(start, tmp_path):
    found = start(f"sleep 600 & echo $! >{tmp_path}/1", 600)
    pid = started(tmp_path)
    found.wait(LIMIT)
    assert runs(pid)
    found.kill()
    until(lambda: not runs(pid))
    found.close()


@pytest.mark.parametrize(("name", "value", "why"), [
    ("QEMU_ARGS", "-device 'x", "-device 'x: No closing quotation"),
    ("SCRIPT", "/bin/ls", "no text"), ("SCRIPT", "/nowhere", "No such file"),
])
def test_what_cannot_be_run_is_refused(monkeypatch, name, value, why):
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.BadSetting, match=f"{name}=.*{why}"):
        guest.requested()


@pytest.fixture(name="probed")
def make_probed(monkeypatch):
    """Each probe of KVM, which fails; QEMU is one that runs."""
    probes = []
    monkeypatch.setattr(accel.os, "access", lambda *_: True)
    monkeypatch.setenv("QEMU", "true")

    def probe(*_, **options):
        probes.append(options["name"])
        raise guest.GuestError("it did not come up")
    monkeypatch.setattr(guest, "Guest", probe)
    return probes


def choose():
    """Choose as a new process does."""
    accel.choose.cache_clear()
    return accel.choose(kernel.Kernel("release", Path("nowhere")), guest.boots)


def test_the_accelerator_is_noted_and_the_note_named(probed, capsys, monkeypatch):
    assert [choose(), choose()] == ["tcg", "tcg"]
    assert len(probed) == 1
    (note,) = settings.cache().iterdir()
    assert f"tcg (noted in {note}; delete it" in capsys.readouterr().err
    note.unlink()
    choose()
    monkeypatch.setenv("QEMU", "/bin/true")
    choose()
    assert len(probed) == 3


def test_without_qemu_nothing_is_noted(probed, monkeypatch):
    monkeypatch.setenv("QEMU", "/nowhere/qemu")
    with pytest.raises(steps.Trouble, match="/nowhere/qemu does not run.*QEMU="):
        choose()
    assert probed == [] and not settings.cache().exists()
