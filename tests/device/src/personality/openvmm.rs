// SPDX-License-Identifier: GPL-2.0

//! OpenVMM: a packed ring, and a range that is a shared memory region alone.
//!
//! Source: microsoft/openvmm, vm/devices/virtio/virtio_pmem/src/lib.rs at
//! 18468b5536fa6a7d82c7b25c952d36ba8c9df466.
//!
//! The configuration space has a start and a size of 0; the range is shared memory region 0,
//! though the feature SHMEM_REGION is not offered. The ring is packed (`packed=1`), with EVENT_IDX
//! and indirect descriptors. The used length is 4 in any case. A flush of a read-only file
//! (`read_only=1`) succeeds, whatever the guest has stored.
//!
//! Mutant of the driver: `Range::of()` without the shared memory region of a device that has no
//! range.

use super::{serve_each, Personality, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use crate::host::Host;
use crate::image::Range;
use std::sync::Arc;

/// OpenVMM's behaviour.
pub struct OpenVmm;

impl Personality for OpenVmm {
    fn features(&self) -> u64 {
        VERSION_1 | EVENT_IDX | INDIRECT_DESC
    }

    fn config(&self, _: Range) -> (u64, u64) {
        (0, 0)
    }

    fn has_region(&self) -> bool {
        true
    }

    fn kick(&self, host: &Arc<Host>) {
        serve_each(host);
    }
}
