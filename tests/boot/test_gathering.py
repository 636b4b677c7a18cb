# SPDX-License-Identifier: GPL-2.0
"""Gathering holds a flush back for callers that were just answered; it can be switched off."""

from machine import MIB, shared_by_rust

MACHINE = {"sizes": (256 * MIB,)}


@shared_by_rust
def test_switch(machine):
    """It can be switched while callers wait; the statistics show whether it is on."""
    device = machine.device()
    disk = machine.disk(device)
    switch = machine.debugfs(device, "gathering")
    assert machine.sh(f"cat {switch}").strip() == "1"
    machine.host.plan("delay 20")
    machine.later("load", f"""
        fio --name=load --filename=/dev/{disk} --numjobs=4 --thread --size=1M --bs=4k \\
            --rw=randwrite --direct=1 --ioengine=psync --sync=dsync --time_based --runtime=10h \\
            --allow_file_create=0
    """)
    before = machine.stats(device)
    # On a busy machine most callers may be late, and then nothing is held back for them.
    machine.wait_stat(device, "gathered", before["gathered"] + 1)
    # By the guest's clock, which may be wrong.
    assert machine.stats(device)["mean_service_us"] >= 1000
    for _ in range(3):
        machine.sh(f"echo 0 >{switch}")
        off = machine.stats(device)
        machine.wait_stat(device, "callers", off["callers"] + 40)
        assert machine.stats(device)["gathered"] == off["gathered"]
        machine.sh(f"echo 1 >{switch}")
        machine.wait_stat(device, "gathered", off["gathered"] + 1)
    machine.fails(f"echo perhaps >{switch}")
    assert machine.sh(f"cat {switch}").strip() == "1"
    machine.sh("killall fio")
    machine.join("load")
    machine.host.plan("pass")
