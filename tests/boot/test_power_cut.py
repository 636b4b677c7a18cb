# SPDX-License-Identifier: GPL-2.0
"""The power cut of `make boot`, under each driver."""

from machine import LIFE, MIB, both_drivers, slowness, watchdogs

import boot


@both_drivers
def test_file_system(kernel, driver):
    """Files that were synced outlive the kill of a guest that goes on writing."""
    options = {"driver": driver, "append": watchdogs(kernel), "timeout": LIFE * slowness(kernel)}
    boot.power_cycle(kernel, ("ext4", False), 128 * MIB, options)
