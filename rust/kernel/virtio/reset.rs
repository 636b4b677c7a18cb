// SPDX-License-Identifier: GPL-2.0

//! Keeps a driver bound from the beginning of a transport's reset to its end.
//!
//! A function reset calls the driver twice, and holds the lock of the transport's device between,
//! but not that of the virtio device. An unbind that came between would find a device that does
//! nothing, with callers waiting for it, and could not be told of the end: it holds the lock that
//! telling would take. So an unbind waits here first, and the end of the reset needs no lock.

use crate::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        Arc,
        Completion, //
    },
    time::msecs_to_jiffies, //
};

/// No reset is under way.
const IDLE: u32 = 0;
/// The driver was told that the device is to be reset.
const RESETTING: u32 = 1;
/// The driver is being told that the device was reset.
const ENDING: u32 = 2;
/// The reset did not come to its end. If it does so later, nobody is told.
const GIVEN_UP: u32 = 3;

/// How long an unbind waits for a reset to come to its end, in milliseconds.
///
/// Longer than PCI waits for a device to come back.
const PATIENCE: u32 = 90_000;

/// How often an unbind that waits looks whether the reset has failed, in milliseconds.
const GLANCE: u32 = 500;

/// The state of a device's resets.
#[pin_data]
pub(super) struct ResetGate {
    state: Atomic<u32>,
    #[pin]
    ended: Completion,
}

impl ResetGate {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                state: Atomic::new(IDLE),
                ended <- Completion::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// The driver was told that a reset begins. To be called with the device's lock held.
    pub(super) fn begin(&self) {
        self.state.store(RESETTING, Release);
    }

    /// Calls `f` if the reset that ends here was begun and nobody has stopped waiting for it. The
    /// driver stays bound meanwhile, without the device's lock.
    pub(super) fn end<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        self.state.cmpxchg(RESETTING, ENDING, Full).ok()?;

        let result = f();

        self.state.store(IDLE, Release);
        self.ended.complete();
        Some(result)
    }

    /// Waits until no reset is under way; a transport that never ends one is given up. `has_failed`
    /// tells whether the core has failed to end it, of which it tells no driver. To be called with
    /// the device's lock held, by who unbinds the driver. May sleep.
    pub(super) fn wait(&self, has_failed: impl Fn() -> bool) {
        let mut left = PATIENCE;

        while !self.is_idle() {
            let ended = self
                .ended
                .wait_for_completion_timeout(msecs_to_jiffies(GLANCE));

            if ended.is_ok() {
                continue;
            }
            left = left.saturating_sub(GLANCE);

            // Once the end has begun, it comes.
            let over = if has_failed() {
                self.state.cmpxchg(RESETTING, IDLE, Full).is_ok()
            } else {
                left == 0 && self.state.cmpxchg(RESETTING, GIVEN_UP, Full).is_ok()
            };

            if over {
                return;
            }
        }
    }

    /// Whether no reset is under way. It stays so as long as the device's lock is held.
    pub(super) fn is_idle(&self) -> bool {
        self.state.load(Acquire) == IDLE
    }

    /// Whether [`wait`](Self::wait) has not seen the end of a reset.
    pub(super) fn is_given_up(&self) -> bool {
        self.state.load(Acquire) == GIVEN_UP
    }
}
