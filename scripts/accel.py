# SPDX-License-Identifier: GPL-2.0
"""Choose between KVM and TCG. Only a guest that has booted proves that KVM works."""

import functools
import os
from pathlib import Path

import architecture
import qemu
import settings
import steps

LIMIT = 10
CHOICES = ("kvm", "tcg")


def arguments(name):
    """Return QEMU's arguments for an accelerator."""
    if name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    cpu = architecture.guests().cpu
    if name == "icount":
        # Counts instructions: one is a nanosecond of the guest's clock.
        return ["-accel", "tcg,thread=single", "-icount", "shift=0", "-cpu", cpu]
    return ["-accel", "tcg,thread=multi", "-cpu", cpu]


def probe(kernel, boots):
    """Return the accelerator that works, and why."""
    if steps.output([qemu.program(), "--version"]) is None:
        raise steps.Trouble(f"{qemu.program()} does not run: install it, or give QEMU=")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm cannot be opened"
    if boots(kernel, "kvm", LIMIT):
        return "kvm", "a guest has booted"
    return "tcg", f"under KVM no guest booted within {LIMIT} s"


@functools.cache
def choose(kernel, boots):
    """Return the accelerator, which is probed once per QEMU and boot of this machine.

    boots(kernel, accelerator, limit) returns whether a guest boots within so many seconds.
    """
    if settings.get("ACCEL"):
        return settings.choice("ACCEL")
    if not architecture.is_native():
        return "tcg"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    note, key = settings.cache() / f"accel-{os.getuid()}", [boot, qemu.program()]
    try:
        known = note.read_text(encoding="utf-8").splitlines()
    except OSError:
        known = []
    if known[:-1] == key and known[-1] in CHOICES:
        # On a busy machine the probe may have been too slow.
        steps.say(f"accelerator: {known[-1]} (noted in {note}; delete it to probe again, or give "
                  "ACCEL=)")
        return known[-1]
    found, why = probe(kernel, boots)
    steps.say(f"accelerator: {found} ({why})")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text("\n".join([*key, found]) + "\n", encoding="utf-8")
    return found
