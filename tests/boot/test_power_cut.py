# SPDX-License-Identifier: GPL-2.0
"""What was durable before QEMU was killed is there in the next guest."""

from machine import both_drivers, dsync


@both_drivers
def test_file_system(boot, driver):
    """Files that were synced outlive the kill of a guest that goes on writing."""
    with boot(driver=driver) as machine:
        machine.sh("""
            mkfs.ext4 -q -b 4096 /dev/pmem0
            mount /dev/pmem0 /mnt
            dd if=/dev/urandom of=/mnt/synced bs=64k count=32 conv=fsync 2>/dev/null
        """)
        sums = machine.sh("cd /mnt; sha256sum synced; sync")
        before = machine.host.begun()
        machine.later("load", """
            while dd if=/dev/urandom of=/mnt/load bs=4k count=8 conv=fsync; do :; done
        """)
        machine.host.wait_begun(before + 20)
        machine.check()
        machine.kill()
    with boot(driver=driver) as machine:
        assert machine.sh("mount /dev/pmem0 /mnt; cd /mnt; sha256sum synced") == sums
        machine.sh("umount /mnt; e2fsck -fn /dev/pmem0 >/dev/null 2>&1")
        machine.check_errors()


def test_acknowledged_writes(boot):
    """Every write that was acknowledged to a writer is there; its number was told after it."""
    with boot() as machine:
        for writer in range(4):
            machine.later(f"writer{writer}", f"""
                for turn in $(seq 1 250); do
                    {dsync("pmem0", 1, writer, "$turn")} && echo $turn >/tmp/told{writer}
                done
            """)
        machine.until(" && ".join(f"[ -s /tmp/told{writer} ]" for writer in range(4)))
        machine.sh("sleep 2")
        told = [int(machine.sh(f"cat /tmp/told{writer}")) for writer in range(4)]
        machine.kill()
    with open(machine.pmem[0].path, "rb") as file:
        for turn in told:
            # The writer may have got further than it could tell.
            assert min(file.read(4096)) >= turn
