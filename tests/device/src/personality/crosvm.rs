// SPDX-License-Identifier: GPL-2.0

//! crosvm: serial, an interrupt for each request, and an extension.
//!
//! Source: google/crosvm, devices/src/virtio/pmem.rs at
//! 070a316a8b14eb5647a71d8f6421932254293cbd; newer versions add DISCARD.
//!
//! The range is in the configuration space, the queue has 256 entries. DISCARD is feature bit
//! 63, its request type 0xffffffff; no specification has it. A driver must not negotiate a bit
//! that it does not know.
//!
//! Mutant of the driver: feature bit 63 among `FEATURES`.

use super::{serve_each, Personality, EVENT_IDX, VERSION_1};
use crate::host::Host;
use std::sync::Arc;

const DISCARD: u64 = 1 << 63;

/// crosvm's behaviour.
pub struct Crosvm;

impl Personality for Crosvm {
    fn features(&self) -> u64 {
        VERSION_1 | EVENT_IDX | DISCARD
    }

    fn kick(&self, host: &Arc<Host>) {
        serve_each(host);
    }
}
