// SPDX-License-Identifier: GPL-2.0

// The kernel crate is linked into vmlinux, so it cannot call a subsystem that is a module.
#[cfg(CONFIG_LIBNVDIMM = "y")]
pub mod nvdimm;
#[cfg(CONFIG_VIRTIO = "y")]
pub mod virtio;
