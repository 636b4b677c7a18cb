# SPDX-License-Identifier: GPL-2.0
"""Why tests do not run in guests for arm64, by the beginning of their names.

QEMU has no virtio-pmem device there, so the one of tests/device serves the disks.
"""

ATTACKED = "a store without a flush does not change the host's image, which is the proof"

SKIPPED = {
    "test_devices.py::test_variant[iommu": "it is an Intel IOMMU",
    "test_devices.py::test_variant[modern]": "QEMU's generic device is never a transitional one",
    "test_devices.py::test_variant[no-event-idx]": "the device always has EVENT_IDX",
    "test_devices.py::test_variant[packed": "the device has a split ring; tests/devices has both",
    "test_hotplug.py": "QEMU has no virtio-pmem device to add",
    "test_namespaces.py::test_every_mode": "the host's image changes by flushes alone",
    "test_read_only.py::test_attack[direct write-c]": ATTACKED,
    "test_read_only.py::test_attack[region-c]": ATTACKED,
    "test_read_only.py::test_attack[remount-c]": ATTACKED,
    "test_read_only.py::test_attack[device-dax-c]": ATTACKED,
    "test_read_only.py::test_attack[sectors-c]": ATTACKED,
    "test_read_only.py::test_kernel_mapping": "QEMU does not list the page tables",
    "test_reset.py::test_needs_reset": "vhost-user has no message for DEVICE_NEEDS_RESET",
    "test_scale.py::test_64_gib": "the device holds the image in memory",
    "test_stale_answer.py::test_recovery": "vhost-user has no message for DEVICE_NEEDS_RESET",
    "test_trace.py::test_free_when_off": "it reads the jump labels of x86",
}
