// SPDX-License-Identifier: GPL-2.0

//! What the callers, the queue's callback, the timer and the work item share: the engine under its
//! lock.

use super::port::DevicePort;
use crate::{
    callers::Callers,
    engine::{
        Engine,
        Timer, //
    },
    trace,
    watchdog::Watch, //
};
use core::mem;
use kernel::{
    device,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        CondVar,
        SpinLockIrq, //
    },
    time::hrtimer::{
        EmbeddedTimer,
        EmbeddedTimerItem, //
    },
    virtio::{
        DeviceWork,
        Notifier,
        Virtqueue, //
    },
    workqueue::{
        EmbeddedWork,
        EmbeddedWorkItem,
        OwnedQueue, //
    }, //
};

/// What the lock protects. It is taken in the queue's callback, where the transport may hold a lock
/// of its own. Under it only the timer's lock is taken.
pub(super) struct State {
    pub(super) engine: Engine<Callers>,
    pub(super) port: DevicePort,
    pub(super) watch: Watch,
    /// How many tasks wait for `changed`.
    pub(super) watchers: usize,
}

impl State {
    /// Sends the next flush if it is needed and can be sent now.
    pub(super) fn pump(&mut self) {
        self.engine.pump(&mut self.port);
    }

    /// Counts a caller that has joined the next batch.
    pub(super) fn arrived(&mut self, sleeps: bool) {
        self.port.stats.callers += 1;
        trace::arrive(&self.port.dev, self.port.stats.flushes + 1, sleeps);
    }

    /// Fails all callers, now and in future.
    pub(super) fn fail(&mut self, why: &'static str) {
        self.engine.fail(why, &mut self.port);
    }

    /// Whether the queue has broken, which no callback reports.
    pub(super) fn is_queue_broken(&self) -> bool {
        self.port.queue.as_ref().is_some_and(Virtqueue::is_broken)
    }

    /// Switches gathering on or off.
    pub(super) fn set_gathering(&mut self, gathers: bool) {
        self.engine.set_gathering(gathers);
        self.pump();
    }
}

/// The state of the work item.
#[pin_data]
pub(super) struct Shared {
    pub(super) dev: ARef<device::Device>,
    #[pin]
    pub(super) state: SpinLockIrq<State>,
    /// The state has changed while a task waits for that.
    #[pin]
    pub(super) changed: CondVar,
    /// After how many seconds without an answer a flush is sent again; 0 if never.
    pub(super) resend_after: Atomic<u32>,
}

impl Shared {
    /// Waits until `condition` holds, or `is_hopeless`, called without the lock, returns true
    /// because it cannot hold any more. The device has to be watched
    /// ([`FlushPath::watch`](super::FlushPath::watch)). May sleep.
    ///
    /// # Errors
    ///
    /// [`ETIMEDOUT`] if the watch has expired.
    pub(super) fn wait_until(
        &self,
        condition: impl Fn(&Engine<Callers>) -> bool,
        is_hopeless: impl Fn() -> bool,
    ) -> Result {
        while !is_hopeless() {
            let mut state = self.state.lock();

            if condition(&state.engine) {
                return Ok(());
            }
            if state.watch.has_expired() {
                return Err(ETIMEDOUT);
            }
            state.watchers += 1;
            // Each check of the watchdog ends this, too.
            self.changed.wait(&mut state);
            state.watchers -= 1;
        }
        Ok(())
    }
}

impl EmbeddedWorkItem for Shared {
    fn run(this: Pin<&EmbeddedWork<Self>>) {
        loop {
            let mut fua_bios = mem::take(&mut this.state.lock().port.fua_bios);

            if fua_bios.is_empty() {
                return;
            }

            let completed = fua_bios.len();
            // Their status was set when their flush ended.
            fua_bios.complete_all(Ok(()));

            let mut state = this.state.lock();

            state.engine.completed(completed);
            let watched = state.watchers > 0;
            drop(state);
            if watched {
                this.changed.notify_all();
            }
        }
    }
}

/// The state of the timer, which ends a gathering, sends what could not be sent for want of memory,
/// and has a device recovered that does not answer.
#[pin_data]
pub(super) struct Timed {
    pub(super) work: DeviceWork,
    // Dropped before the queue that it runs on.
    #[pin]
    pub(super) shared: EmbeddedWork<Shared>,
    pub(super) ordered: OwnedQueue,
}

/// Runs `f` under the lock, and then does without the lock what follows from the new state. Any
/// context.
pub(super) fn update<R>(timed: &EmbeddedTimer<Timed>, f: impl FnOnce(&mut State) -> R) -> R {
    let shared = &timed.shared;
    // Keeps the queue until it was notified.
    let rcu = rcu::read_lock();
    let mut state = shared.state.lock();
    let result = f(&mut state);
    let (outcome, ended) = state.port.take_outcome();
    let work = state.port.has_work();
    let watched = state.watchers > 0;
    let notifier = if state.engine.take_notify() {
        state.port.queue.as_ref().map(|queue| queue.notifier(&rcu))
    } else {
        None
    };

    // Under the lock, so that it cannot undo what another update has done.
    match state.engine.take_timer() {
        Some(Timer::Start(time)) => timed.start(state.port.instant(time)),
        Some(Timer::Stop) => {
            timed.try_cancel();
        }
        None => (),
    }
    // They end below, in a context that ends before the device does: a callback, the timer, a
    // caller that holds the region, the removal itself.
    state.engine.completed(ended);
    drop(state);

    let notified = notifier.is_none_or(Notifier::notify);
    drop(rcu);

    if let Some(complaint) = outcome.complaint {
        complaint.print(&shared.dev);
    }
    outcome.end();
    if watched {
        shared.changed.notify_all();
    }
    if work {
        shared.enqueue(&timed.ordered);
    }
    if !notified {
        give_up_if_broken(timed);
    }
    result
}

/// Fails all callers if the queue has broken. Any context.
pub(super) fn give_up_if_broken(timed: &EmbeddedTimer<Timed>) {
    update(timed, |state| {
        if state.is_queue_broken() {
            state.fail("the queue is broken");
        }
    });
}

impl EmbeddedTimerItem for Timed {
    fn expired(this: Pin<&EmbeddedTimer<Self>>) {
        let resend_after = this.shared.resend_after.load(Relaxed);
        let is_overdue = update(&this, |state| {
            state.port.resend_after = resend_after;
            state.engine.wake(&mut state.port);
            state.engine.is_overdue()
        });

        if is_overdue {
            this.work.schedule();
        }
    }
}
