# SPDX-License-Identifier: GPL-2.0
"""The project's own device: its command line, its program, the table of what passed."""

import shutil
from pathlib import Path

import pytest

import device
import device_table
import mutant
from guest import GuestError
from kernel import Kernel
from served import Served

REPORT = """
<testsuites><testsuite timestamp="2026-11-22T08:00:00">
<testcase name="test_probe[firecracker-mmio]"/>
<testcase name="test_file_system[firecracker-mmio-ext4]"/>
<testcase name="test_file_system[firecracker-mmio-xfs]"><failure/></testcase>
<testcase name="test_reset[firecracker-mmio]"><skipped/></testcase>
<testcase name="test_many_jobs[cloud-hypervisor-pci]">
<properties><property name="fsyncs_per_flush" value="29.5"/></properties></testcase>
<testcase name="test_hostile[hostile-pci-packed-17-0]"/>
<testcase name="test_mutant[qemu-pci]"/>
</testsuite></testsuites>
"""

TABLE = """
| personality | transport | probe | ext4, xfs | power cut | rebind | reset | suspend | 64 jobs \
| read-only | bad answers | faults found | fsyncs per flush |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| qemu | pci |  |  |  |  |  |  |  |  |  | 1 |  |
| firecracker | mmio | 1 | **1 of 2** |  |  |  |  |  |  |  |  |  |
| cloud-hypervisor | pci |  |  |  |  |  |  | 1 |  |  |  | 29.5 |
| hostile | pci, packed |  |  |  |  |  |  |  |  | 1 |  |  |
"""


def test_table(tmp_path):
    """A failure is seen at once; what was skipped or not run is left out."""
    (tmp_path / "report.xml").write_text(REPORT)
    assert device_table.table(tmp_path / "report.xml") == TABLE.lstrip()
    assert device_table.date(tmp_path / "report.xml") == "2026-11-22"


def test_command(tmp_path):
    """Only a device without a region has its range in the guest's memory."""
    made = device.Device("program", tmp_path, "firecracker", "mmio", {"delay": 10}, start=4096)
    words = made.command("/socket")
    assert words[0] == "program" and "delay=10" in words and "start=4096" in words
    made = device.Device("program", tmp_path, "openvmm", "pci")
    assert not any(word.startswith("start=") for word in made.command("/socket")[1:])


def test_journal(tmp_path):
    made = device.Device("program", tmp_path, "qemu", "pci")
    assert made.notes("flush") == []
    made.journal.write_text("0.100000 kick\n0.200000 flush 1 12\n0.300000 flush 2 0\n")
    assert made.notes("flush") == [["1", "12"], ["2", "0"]]
    assert made.times("flush") == [0.2, 0.3]


# Notes its number, opens its socket, and waits for a QEMU.
PROGRAM = """#!/bin/sh
for word; do case $word in socket=*) socket=${word#*=};; journal=*) journal=${word#*=};; esac; done
echo $$ >"$journal"
touch "$socket"
exec sleep 600
"""


@pytest.mark.parametrize("log", ["file", "directory"])
def test_no_qemu(tmp_path, monkeypatch, log):
    """If QEMU does not start, or not even its log, nothing is left behind."""
    monkeypatch.setattr(device, "GRACE", 0.1)
    monkeypatch.setenv("QEMU", shutil.which("false"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    served = device.Device(program, tmp_path, "qemu", "pci")
    guest = Served(Kernel("release", tmp_path), served=served, name="no-qemu",
                          logs=tmp_path, accelerator="tcg")
    if log == "directory":
        guest.qemu_log.mkdir()
    with pytest.raises((GuestError, OSError), match="QEMU did not start|Is a directory"):
        guest.start()
    # If it has no other parent any more, it may be a zombie.
    running = Path(f"/proc/{served.journal.read_text().strip()}/cmdline")
    assert not running.exists() or running.read_bytes() == b""
    assert list(tmp_path.glob("device-*")) + list(tmp_path.glob("guest-*")) == []


@pytest.mark.parametrize("name", sorted({
    *device.PERSONALITIES, *(path.stem for path in mutant.FOLDER.glob("*.patch"))}))
def test_mutant(tmp_path, name):
    """There is a fault for each personality, and each fits the driver of today."""
    mutant.patch(name, tmp_path / "source")
