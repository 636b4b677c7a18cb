# SPDX-License-Identifier: GPL-2.0
"""Choose between KVM and TCG. Only a guest that really ran proves KVM."""

import functools
import os
from pathlib import Path

import settings
import steps

LIMIT = 10
CHOICES = ("kvm", "tcg")


def arguments(name):
    """Return QEMU's arguments for an accelerator."""
    if name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def probe(kernel):
    """Return the accelerator that works, and why."""
    if steps.output([settings.qemu(), "--version"]) is None:
        raise steps.Trouble(f"{settings.qemu()} does not run: install it, or give QEMU=")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "/dev/kvm cannot be opened"
    import guest  # pylint: disable=import-outside-toplevel,cyclic-import
    try:
        with guest.Guest(kernel, name="probe-kvm", accelerator="kvm", timeout=LIMIT):
            return "kvm", "a guest ran"
    except guest.GuestError:
        return "tcg", f"under KVM no guest ran within {LIMIT} s"


@functools.cache
def choose(kernel):
    """Return the accelerator; found out once per QEMU and boot of this machine."""
    if settings.get("ACCEL"):
        return settings.choice("ACCEL")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    note, key = settings.cache() / f"accel-{os.getuid()}", [boot, settings.qemu()]
    try:
        known = note.read_text(encoding="utf-8").splitlines()
    except OSError:
        known = []
    if known[:-1] == key and known[-1] in CHOICES:
        # A guest that a busy machine was too slow for does not prove much.
        steps.say(f"accelerator: {known[-1]} (noted in {note}; delete it and it is found out "
                  "again, or give ACCEL=)")
        return known[-1]
    found, why = probe(kernel)
    steps.say(f"accelerator: {found} ({why})")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text("\n".join([*key, found]) + "\n", encoding="utf-8")
    return found
