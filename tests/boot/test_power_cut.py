# SPDX-License-Identifier: GPL-2.0
"""The power cut of `make boot`, under each driver."""

from host import LIMIT
from machine import MIB, both_drivers

import boot


@both_drivers
def test_file_system(kernel, driver):
    """Files that were synced outlive the kill of a guest that goes on writing."""
    options = {"driver": driver, "timeout": 6 * LIMIT}
    boot.power_cycle(kernel, ("ext4", False), 128 * MIB, options)
