// SPDX-License-Identifier: GPL-2.0

//! Mistakes that the driver makes when it is told to, so that tests can show that they notice them.
//! Without `CONFIG_VIRTIO_PMEM_RUST_FAULTS` nobody can tell it, and the compiler removes them.

use super::Flush;
use kernel::{
    debugfs::ScopedDir,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::msecs_to_jiffies, //
};

/// The mistakes of one device: none, until its files in debugfs say otherwise.
pub(super) struct Faults {
    /// Who comes while a flush is in flight is acknowledged with it, though it was sent before.
    early_ack: Atomic<u32>,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            early_ack: Atomic::new(0),
        }
    }
}

impl Flush {
    /// Makes the files that switch mistakes on and off.
    pub(crate) fn show_faults<'data>(&'data self, dir: &ScopedDir<'data, '_>) {
        if cfg!(CONFIG_VIRTIO_PMEM_RUST_FAULTS) {
            dir.read_write_file(c"early_ack", &self.faults.early_ack);
        }
    }

    /// Whether a caller is to be told that its stores are durable, which they are not. May sleep.
    pub(super) fn acknowledges_early(&self) -> bool {
        if !cfg!(CONFIG_VIRTIO_PMEM_RUST_FAULTS) || self.faults.early_ack.load(Relaxed) == 0 {
            return false;
        }

        // A host that does not answer is not waited for.
        let mut left = msecs_to_jiffies(1000);
        let mut state = self.shared.state.lock();
        let answers = state.path.answers;

        if !state.engine.expects_answer() {
            return false;
        }
        while state.path.answers == answers && left > 0 {
            state.watchers += 1;
            left = self.shared.changed.wait_timeout(&mut state, left);
            state.watchers -= 1;
        }
        left > 0
    }
}
