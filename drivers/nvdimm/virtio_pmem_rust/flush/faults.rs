// SPDX-License-Identifier: GPL-2.0

//! Faults that can be switched on, to show that the tests find them. Without
//! `CONFIG_VIRTIO_PMEM_RUST_FAULTS` they are off, and the compiler removes them.

use super::FlushPath;
use kernel::{
    debugfs::ScopedDir,
    sync::atomic::Atomic, //
};

/// The faults of one device: off, until its file in debugfs is written.
pub(super) struct Faults {
    /// Callers that arrive while a flush is in flight are acknowledged with it, which violates R1.
    early_ack: Atomic<u32>,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            early_ack: Atomic::new(0),
        }
    }
}

impl FlushPath {
    /// Makes the files that switch faults on and off.
    pub(crate) fn show_faults<'data>(&'data self, dir: &ScopedDir<'data, '_>) {
        if cfg!(CONFIG_VIRTIO_PMEM_RUST_FAULTS) {
            dir.read_write_file(c"early_ack", &self.faults.early_ack);
        }
    }

    /// Returns whether a caller is to be acknowledged although its stores are not durable. May
    /// sleep.
    #[cfg(CONFIG_VIRTIO_PMEM_RUST_FAULTS)]
    pub(super) fn acknowledges_early(&self) -> bool {
        use kernel::{
            sync::atomic::Relaxed,
            time::msecs_to_jiffies, //
        };

        if self.faults.early_ack.load(Relaxed) == 0 {
            return false;
        }

        // The wait ends if the host does not answer.
        let mut left = msecs_to_jiffies(1000);
        let mut state = self.shared().state.lock();
        let answers = state.port.answers;

        if !state.engine.expects_answer() {
            return false;
        }
        while state.port.answers == answers && left > 0 {
            state.watchers += 1;
            left = self.shared().changed.wait_timeout(&mut state, left);
            state.watchers -= 1;
        }
        left > 0
    }

    #[cfg(not(CONFIG_VIRTIO_PMEM_RUST_FAULTS))]
    pub(super) fn acknowledges_early(&self) -> bool {
        false
    }
}
