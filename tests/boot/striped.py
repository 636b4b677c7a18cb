# SPDX-License-Identifier: GPL-2.0
"""A striped disk of md or of the device mapper, made of a guest's devices."""


def members(machine):
    """Return the names of the devices' disks."""
    return [machine.disk(device) for device in machine.devices_found()]


def raid0(machine, disks, size, chunk):
    """Make a striped disk from the first bytes of each disk; return its name."""
    # Without metadata on the disks: the array lives as long as the guest.
    machine.sh("modprobe raid0; echo md0 >/sys/module/md_mod/parameters/new_array")
    machine.sh(f"""
        cd /sys/block/md0/md
        echo none >metadata_version
        echo raid0 >level
        echo {len(disks)} >raid_disks
        echo {chunk} >chunk_size
    """ + "".join(f"""
        cat /sys/block/{disk}/dev >new_dev
        echo {size // 1024} >dev-{disk}/size
        echo {slot} >dev-{disk}/slot
    """ for slot, disk in enumerate(disks)) + """
        echo active >array_state
    """)
    return "md0"


def stop(machine):
    """Stop the striped disk of md."""
    machine.sh("echo clear >/sys/block/md0/md/array_state")


def mapper(machine, disks, size, chunk):
    """Make a striped disk of the device mapper from the first bytes of each disk; return its name.
    """
    parts = " ".join(f"/dev/{disk} 0" for disk in disks)
    machine.sh("dmsetup create --noudevsync stripe --table "
               f"'0 {len(disks) * size // 512} striped {len(disks)} {chunk // 512} {parts}'")
    machine.until("[ -b /dev/dm-0 ]")
    return "dm-0"


def remove(machine):
    """Remove the striped disk of the device mapper."""
    machine.sh("dmsetup remove --noudevsync stripe")
