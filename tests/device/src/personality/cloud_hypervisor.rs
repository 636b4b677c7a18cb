// SPDX-License-Identifier: GPL-2.0

//! Cloud Hypervisor: a worker that serves one request after the other.
//!
//! Source: cloud-hypervisor/cloud-hypervisor, virtio-devices/src/pmem.rs at
//! 00a8c87b0b06d88704c2ffa0c925702255dcab4c.
//!
//! The device is on PCI, offers VERSION_1 and, behind its IOMMU, ACCESS_PLATFORM, and has a
//! queue of 256. Each request gets a sync_all of its own; one interrupt follows for all. A
//! request that cannot be parsed comes back with a used length of 0.
//!
//! Not here: the death of the worker, which sets DEVICE_NEEDS_RESET. vhost-user has no message
//! for that; the other tests in guests cause it in QEMU's device.
//!
//! Mutant of the driver: ACCESS_PLATFORM cleared in `validate()`; then the device is not
//! started.

use super::{Personality, ACCESS_PLATFORM, VERSION_1};
use crate::host::{Host, FLUSH, OK};
use std::sync::Arc;

/// Cloud Hypervisor's behaviour.
pub struct CloudHypervisor;

impl Personality for CloudHypervisor {
    fn features(&self) -> u64 {
        VERSION_1 | ACCESS_PLATFORM
    }

    fn kick(&self, host: &Arc<Host>) {
        while let Some(request) = host.take() {
            if request.kind == Some(FLUSH) && request.status.is_some() {
                host.flush();
                host.put(&request, Some(OK), 4);
            } else {
                host.note("malformed");
                host.put(&request, None, 0);
            }
        }
        host.notify();
    }
}
