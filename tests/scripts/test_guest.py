# SPDX-License-Identifier: GPL-2.0
"""A guest's end takes all its processes along; variables of make become QEMU's command line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import accel
import guest
import kernel
import settings
import steps

# Seconds after which a wait fails.
LIMIT = 120


@pytest.fixture(name="start", autouse=True)
def make_start(tmp_path, monkeypatch):
    """A function that starts a guest with a script in place of QEMU; see started()."""
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def start(script, timeout, **options):
        monkeypatch.setattr(guest.Guest, "command",
                            lambda _: ["sh", "-c", f"echo $$ >{tmp_path}/0; {script}"])
        monkeypatch.setattr(guest.Guest, "connect", lambda _: None)
        found = guest.Guest(kernel.Kernel("release", tmp_path), timeout=timeout, **options)
        found.start()
        return found
    return start


def state(pid):
    """Return the letter of a process's state, or an empty string if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def runs(pid):
    """Return whether a process runs; a zombie, which init may not have reaped yet, does not."""
    return state(pid) not in ("", "Z")


def until(condition):
    """Wait until a condition holds."""
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def is_started(tmp_path):
    """Return whether the process in place of QEMU has started."""
    return (tmp_path / "1").exists() and (tmp_path / "1").read_text().strip()


def started(tmp_path):
    """Wait until the process in place of QEMU has started; return its number."""
    until(lambda: is_started(tmp_path))
    return int((tmp_path / "1").read_text())


def test_the_limit_ends_the_children_of_a_wrapper(start, tmp_path):
    # On a busy machine the process may not start within the limit.
    for limit in (1, 5, 25):
        found = start(f"sleep 600 & echo $! >{tmp_path}/1; wait", limit)
        assert found.wait(LIMIT)
        if is_started(tmp_path):
            break
        found.close()
    pid = started(tmp_path)
    until(lambda: not runs(pid))
    found.close()


def test_a_child_that_outlives_its_wrapper_is_killed(start, tmp_path):
    found = start(f"sleep 600 & echo $! >{tmp_path}/1", 600)
    pid = started(tmp_path)
    found.wait(LIMIT)
    assert runs(pid)
    found.kill()
    until(lambda: not runs(pid))
    found.close()


def test_a_shell_ends_with_its_tool(start, tmp_path):
    script = f"trap 'touch {tmp_path}/terminal; exit' TERM; echo $$ >{tmp_path}/1; "
    found = start(f"{script} while :; do sleep 0.1; done", 600, shell=True)
    pid = started(tmp_path)
    until(lambda: state(found.process.pid) == "S")  # before it waits, timeout forwards no signal
    found.close()
    assert not runs(pid)
    assert (tmp_path / "terminal").exists()  # QEMU was not killed


@pytest.mark.parametrize(("name", "value", "why"), [
    ("QEMU_ARGS", "-device 'x", "-device 'x: No closing quotation"),
    ("SCRIPT", "/bin/ls", "no text"), ("SCRIPT", "/nowhere", "No such file"),
    ("PMEM", "a 'b", "a 'b: No closing quotation"), ("PMEM", "a ''", "FILE:SIZE"),
    ("PMEM", "a:0", "use a size"),
    ("SNAPSHOT", "yes", "0, 1"), ("SHARE", "/nowhere", "not a directory"),
])
def test_bad_variables_are_refused(monkeypatch, name, value, why):
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.BadSetting, match=f"{name}=.*{why}"):
        guest.requested(Path("nowhere"))


def test_variables_describe_the_guest(monkeypatch, tmp_path):
    for name, value in {"PMEM": "a.img 'b c:d:64M' :1G", "BLK": ":4096", "SNAPSHOT": "1",
                        "SHARE": str(tmp_path), "LOGS": "mine", "RUN": "true"}.items():
        monkeypatch.setenv(name, value)
    options, run = guest.requested(tmp_path)
    assert run == "true"
    assert options["pmem"] == [guest.Disk(Path("a.img"), snapshot=True),
                               guest.Disk(Path("b c:d"), 64 << 20, snapshot=True),
                               guest.Disk(tmp_path / "pmem2", 1 << 30, snapshot=True)]
    assert options["blk"] == [guest.Disk(tmp_path / "blk0", 4096, snapshot=True)]
    assert (options["share"], options["logs"]) == (str(tmp_path), "mine")


def test_without_variables_there_is_one_device(monkeypatch, tmp_path):
    monkeypatch.setenv("PMEM_SIZE", "1M")
    options, run = guest.requested(tmp_path)
    assert options["pmem"] == [guest.Disk(tmp_path / "pmem0", 1 << 20)]
    assert (options["blk"], options["share"], options["logs"], run) == ([], None, None, "")


def test_a_file_is_created_and_kept(tmp_path):
    path = tmp_path / "disk"
    assert guest.Disk(path, 1 << 40).create() == 1 << 40
    assert path.stat().st_blocks == 0
    path.write_bytes(b"data")
    assert guest.Disk(path).create() == guest.Disk(path, 4).create() == 4
    assert path.read_bytes() == b"data"


def test_a_file_of_unknown_or_another_size_is_refused(tmp_path):
    path = tmp_path / "disk"
    with pytest.raises(guest.GuestError, match="does not exist: give its size"):
        guest.Disk(path).create()
    path.write_bytes(b"data")
    with pytest.raises(guest.GuestError, match="has 4 bytes, not 5"):
        guest.Disk(path, 5).create()
    assert path.read_bytes() == b"data"


def test_devices_of_all_kinds(tmp_path):
    disks = [guest.Disk(tmp_path / "a,b", 4096, "packed=on"),
             guest.Disk(tmp_path / "c", 8192, snapshot=True)]
    found = guest.Guest(kernel.Kernel("release", tmp_path), pmem=disks, blk=disks,
                        share=tmp_path / "d,e", ports=1)
    words = " ".join(found.devices())
    for expected in (
        f"id=mem0,share=on,mem-path={tmp_path}/a,,b,size=4096 ",
        f"id=mem1,share=off,mem-path={tmp_path}/c,size=8192 ",
        "virtio-pmem-pci,id=pmem0,bus=pmem0-port,memdev=mem0,packed=on ",
        f"id=drive0,format=raw,snapshot=off,file={tmp_path}/a,,b ",
        f"id=drive1,format=raw,snapshot=on,file={tmp_path}/c ",
        "virtio-blk-pci,id=blk1,bus=blk1-port,drive=drive1 ",
        "id=port0,chassis=5,",
        f"path={tmp_path}/d,,e ", "virtio-9p-pci,fsdev=share,mount_tag=share",
    ):
        assert expected in words


def test_logs_go_to_a_folder_of_ones_choice(tmp_path):
    found = guest.Guest(kernel.Kernel("release", tmp_path), name="demo", logs=tmp_path / "mine")
    assert found.console_log == tmp_path / "mine/demo.console.log"
    assert found.qemu_log.parent.is_dir()


def test_the_library_needs_no_more_than_its_path(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(settings.ROOT / "scripts")}
    subprocess.run([sys.executable, "-c", "from guest import Disk, Guest"], cwd=tmp_path,
                   env=environment, check=True)


@pytest.fixture(name="probed")
def make_probed(monkeypatch):
    """A list of the probes of KVM, all of which fail; QEMU itself runs."""
    probes = []
    monkeypatch.setattr(accel.os, "access", lambda *_: True)
    monkeypatch.setenv("QEMU", "true")

    def probe(*_, **options):
        probes.append(options["name"])
        raise guest.GuestError("no boot")
    monkeypatch.setattr(guest, "Guest", probe)
    return probes


def choose():
    """Choose as in a new process."""
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
