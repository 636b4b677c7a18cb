// SPDX-License-Identifier: GPL-2.0

//! Keeps a driver bound from the beginning of a transport's reset to its end.
//!
//! A function reset calls the driver twice. Between the calls it holds the lock of the transport's
//! device, but not that of the virtio device. An unbind at that time would find a stopped device,
//! with callers that wait for it. If the end of the reset took the virtio device's lock, it would
//! wait for the unbind, and the unbind for it. So an unbind first waits for the end of the reset,
//! which takes no lock.

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
/// `reset_prepare` was called.
const RESETTING: u32 = 1;
/// `reset_done` is being called.
const ENDING: u32 = 2;
/// The reset did not end in time. If it ends later, the driver is not called.
const GIVEN_UP: u32 = 3;

/// How long an unbind waits for the end of a reset, in milliseconds.
///
/// Longer than PCI waits for a device to come back.
const LIMIT: u32 = 90_000;

/// How often a waiting unbind checks whether the reset has failed, in milliseconds.
const INTERVAL: u32 = 500;

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

    /// A reset begins: `reset_prepare` was called. To be called with the device's lock held.
    pub(super) fn begin(&self) {
        self.state.store(RESETTING, Release);
    }

    /// Calls `f` if a reset has begun and was not given up. The driver stays bound meanwhile,
    /// without the device's lock.
    pub(super) fn end<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        self.state.cmpxchg(RESETTING, ENDING, Full).ok()?;

        let result = f();

        self.state.store(IDLE, Release);
        self.ended.complete();
        Some(result)
    }

    /// Waits until no reset is under way, or the limit is reached. `has_failed` returns whether the
    /// core has failed to end it, which it reports to no driver. To be called by an unbind, with
    /// the device's lock held. May sleep.
    pub(super) fn wait(&self, has_failed: impl Fn() -> bool) {
        let mut left = LIMIT;

        while !self.is_idle() {
            let ended = self
                .ended
                .wait_for_completion_timeout(msecs_to_jiffies(INTERVAL));

            if ended.is_ok() {
                continue;
            }
            left = left.saturating_sub(INTERVAL);

            // In state `ENDING` the end is sure to come.
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

    /// Returns whether no reset is under way. It stays so as long as the device's lock is held.
    pub(super) fn is_idle(&self) -> bool {
        self.state.load(Acquire) == IDLE
    }

    /// Returns whether [`wait`](Self::wait) has given a reset up.
    pub(super) fn is_given_up(&self) -> bool {
        self.state.load(Acquire) == GIVEN_UP
    }
}
