# SPDX-License-Identifier: GPL-2.0
"""The driver as a module: found by its alias, kept while in use, unloaded when not."""

import re

import pytest
from machine import DRIVERS, both_drivers

import settings

EVENTS = settings.ROOT / "drivers/nvdimm/virtio_pmem_rust/virtio_pmem_rust_events.c"
LOADED = "lsmod | grep -q '^{} '"


def loaded(machine, driver="rust"):
    """Return whether a driver's module is loaded."""
    return machine.run(LOADED.format(DRIVERS[driver])).status == 0


@both_drivers
def test_alias(boot, driver):
    """A device's alias alone loads its driver's module: nothing names the module."""
    with boot(driver=driver) as machine:
        device = machine.device()
        assert machine.sh(f"cat {device.path}/modalias") == "virtio:d0000001Bv00001AF4"
        aliases = machine.sh(f"grep ' {DRIVERS[driver]}$' /lib/modules/*/modules.alias")
        assert aliases.split() == ["alias", "virtio:d0000001Bv*", DRIVERS[driver]]
        assert machine.bound(device) == DRIVERS[driver]
        assert loaded(machine, driver)


def test_modinfo(boot):
    """The module has a license, a description, an author, an alias and its parameter."""
    version = re.search(r'^MODULE_VERSION\("(.+)"\);$', EVENTS.read_text(), re.M)[1]
    with boot(sizes=(), driver="none") as machine:
        text = machine.sh(f"modinfo {DRIVERS['rust']}")
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        assert fields["license"] == "GPL"
        assert fields["version"] == version
        assert fields["description"]
        assert fields["author"]
        assert "virtio:d0000001Bv*" in text
        assert "timeout" in text


def test_no_device(boot):
    """Without a device the driver is not loaded; by hand it can be loaded and unloaded."""
    with boot(sizes=()) as machine:
        assert not loaded(machine)
        for _ in range(5):
            machine.sh(f"modprobe {DRIVERS['rust']}; rmmod {DRIVERS['rust']}")
        assert not loaded(machine)
        machine.check_errors()


@both_drivers
def test_rmmod(boot, driver):
    """A module with an enabled region stays; after an unbind it can be unloaded and loaded."""
    name = DRIVERS[driver]
    with boot(driver=driver) as machine:
        device = machine.device()
        machine.disk(device)
        machine.sh("echo precious | dd of=/dev/pmem0 conv=fsync 2>/dev/null")
        machine.fails(f"rmmod {name}")
        assert loaded(machine, driver)
        assert machine.bound(device) == name

        machine.unbind(device)
        machine.sh(f"rmmod {name}")
        assert not loaded(machine, driver)
        assert machine.run("ls /dev/pmem*").status != 0

        machine.sh(f"modprobe -b {machine.sh(f'cat {device.path}/modalias')}")
        assert machine.bound(device) == name
        disk = machine.disk(device)
        assert machine.sh(f"head -n 1 /dev/{disk}") == "precious"
        machine.check_errors()


@pytest.mark.parametrize("first, second", [("rust", "c"), ("c", "rust")])
def test_handover(boot, first, second):
    """Data that was written under one driver is intact under the other."""
    with boot(driver=first) as machine:
        device = machine.device()
        disk = machine.disk(device)
        machine.sh(f"""
            mkfs.ext4 -q -b 4096 /dev/{disk}
            mount /dev/{disk} /mnt
            dd if=/dev/urandom of=/mnt/file bs=64k count=16 conv=fsync 2>/dev/null
            sha256sum /mnt/file >/tmp/sum
            umount /mnt
        """)
        machine.unbind(device)
        machine.sh(f"rmmod {DRIVERS[first]}; modprobe {DRIVERS[second]}")
        assert machine.bound(device) == DRIVERS[second]
        disk = machine.disk(device)
        machine.sh(f"""
            e2fsck -fn /dev/{disk} >/dev/null 2>&1
            mount /dev/{disk} /mnt
            sha256sum -c /tmp/sum
            umount /mnt
        """)
        machine.check_errors()
