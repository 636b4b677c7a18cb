// SPDX-License-Identifier: GPL-2.0

//! The one limit on waiting: a device that makes no progress while it is removed, suspended, reset
//! or recovered.
//!
//! In normal service a caller waits as long as the host takes. But a task that stops the device
//! holds its lock and cannot be stopped itself, so its wait is bounded: from the moment before it
//! begins to wait, until the device works again or is gone, a timer looks at the flush path.

use crate::flush::Flush;
use core::mem;
use kernel::{
    impl_has_hr_timer,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
    time::{
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
    }, //
};

/// How often the timer looks.
const LOOKS_PER_SECOND: u32 = 4;

/// What a device is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Removal,
    Suspend,
    Resume,
    FunctionReset,
    Recovery,
    Shutdown,
}

impl Subject {
    /// The name for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Removal => "removal",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::FunctionReset => "function reset",
            Self::Recovery => "recovery",
            Self::Shutdown => "shutdown",
        }
    }

    /// The least limit, in seconds. PCI waits 60 s for a function to come back from a reset, and
    /// an unbind 90 s for PCI.
    fn least(self) -> u32 {
        match self {
            Self::FunctionReset => 100,
            _ => 1,
        }
    }
}

/// What happens when the limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The task that waits for the host's answer goes on without it.
    EndWait,
    /// All callers fail, now and in future.
    GiveUp,
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Fine,
    /// There was no progress for this many seconds, half of the limit that follows or more. Told
    /// once for each silence.
    Slow(Subject, u32, u32),
    GiveUp,
}

/// What is watched, and what was seen so far.
#[derive(Default)]
pub(crate) struct Watch {
    subject: Option<(Subject, Expiry)>,
    /// How many answers there were at the last look.
    answers: u64,
    /// How often in a row callers waited, and there was no answer.
    silent: u32,
    /// This silence was told of.
    told: bool,
    expired: bool,
}

impl Watch {
    pub(crate) fn new(subject: Subject, expiry: Expiry, answers: u64) -> Self {
        Self {
            subject: Some((subject, expiry)),
            answers,
            ..Self::default()
        }
    }

    /// Whether [`Expiry::EndWait`] has come about.
    pub(crate) fn has_expired(&self) -> bool {
        self.expired
    }

    /// Looks: `is_owed` tells whether callers wait or an answer is to come, `answers` how many
    /// have come, `timeout` is the limit in seconds, which may change while the watch goes on.
    pub(crate) fn look(&mut self, is_owed: bool, answers: u64, timeout: u32) -> Look {
        let Some((subject, expiry)) = self.subject else {
            return Look::Fine;
        };
        let limit = timeout.max(subject.least());
        let looks = limit.saturating_mul(LOOKS_PER_SECOND);

        if !is_owed || answers != self.answers {
            self.answers = answers;
            self.silent = 0;
            self.told = false;
            return Look::Fine;
        }
        self.silent = self.silent.saturating_add(1);
        // At the first of these looks a caller may have come just before.
        if self.silent > looks {
            if expiry == Expiry::GiveUp {
                return Look::GiveUp;
            }
            self.expired = true;
        } else if self.silent >= looks / 2 && !mem::replace(&mut self.told, true) {
            return Look::Slow(subject, self.silent / LOOKS_PER_SECOND, limit);
        }
        Look::Fine
    }
}

/// The timer of one device.
#[pin_data]
pub(crate) struct Watchdog {
    flush: Arc<Flush>,
    #[pin]
    timer: HrTimer<Self>,
    /// The timer runs as long as this is here.
    #[pin]
    running: Mutex<Option<ArcHrTimerHandle<Self>>>,
}

impl Watchdog {
    pub(crate) fn new(flush: Arc<Flush>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                flush,
                timer <- HrTimer::new(),
                running <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )
    }

    /// Watches the flush path until [`stop`](Self::stop), in place of what was watched before. May
    /// sleep.
    pub(crate) fn start(self: &Arc<Self>, subject: Subject, expiry: Expiry) {
        self.flush.watch(subject, expiry);
        self.running
            .lock()
            .get_or_insert_with(|| HrTimerPointer::start(self.clone(), interval()));
    }

    /// Ends the watch. May sleep.
    pub(crate) fn stop(&self) {
        // Waits for the timer's callback.
        drop(self.running.lock().take());
        self.flush.unwatch();
    }
}

fn interval() -> Delta {
    Delta::from_millis((1000 / LOOKS_PER_SECOND).into())
}

impl HrTimerCallback for Watchdog {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        this.flush.look();
        context.forward_now(interval());
        HrTimerRestart::Restart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Watchdog {
        mode: RelativeMode<Monotonic>,
        field: self.timer
    }
}

#[kunit_tests(virtio_pmem_rust_watchdog)]
mod tests {
    use super::*;

    /// How many looks in a row, without an answer, until one finds something.
    fn looks_until(watch: &mut Watch, timeout: u32) -> (u32, Look) {
        (1..)
            .map(|n| (n, watch.look(true, 0, timeout)))
            .find(|(_, look)| *look != Look::Fine)
            .unwrap_or((0, Look::Fine))
    }

    #[test]
    fn warns_at_half_time_and_then_gives_up() {
        let mut watch = Watch::new(Subject::Removal, Expiry::GiveUp, 0);

        assert_eq!(
            looks_until(&mut watch, 10),
            (20, Look::Slow(Subject::Removal, 5, 10))
        );
        assert_eq!(looks_until(&mut watch, 10), (21, Look::GiveUp));
    }

    #[test]
    fn an_answer_begins_it_anew() {
        let mut watch = Watch::new(Subject::Removal, Expiry::GiveUp, 0);

        for answers in 0..100 {
            for _ in 0..39 {
                assert_ne!(watch.look(true, answers, 10), Look::GiveUp);
            }
        }
        assert_eq!(watch.look(false, 99, 10), Look::Fine);
        assert_eq!(watch.silent, 0);
    }

    #[test]
    fn a_wait_ends_without_giving_up() {
        let mut watch = Watch::new(Subject::Removal, Expiry::EndWait, 0);

        for _ in 0..40 {
            let _ = watch.look(true, 0, 10);
        }
        assert!(!watch.has_expired());
        assert_eq!(watch.look(true, 0, 10), Look::Fine);
        assert!(watch.has_expired());
    }

    #[test]
    fn the_limit_can_be_changed() {
        let mut watch = Watch::new(Subject::Removal, Expiry::GiveUp, 0);

        for _ in 0..30 {
            assert_eq!(watch.look(true, 0, 1000), Look::Fine);
        }
        assert_eq!(watch.look(true, 0, 10), Look::Slow(Subject::Removal, 7, 10));
        assert_eq!(watch.look(true, 0, 1000), Look::Fine);
        assert_eq!(watch.look(true, 0, 5), Look::GiveUp);
    }

    #[test]
    fn a_function_reset_has_its_time() {
        let mut watch = Watch::new(Subject::FunctionReset, Expiry::GiveUp, 0);

        assert_eq!(
            looks_until(&mut watch, 1),
            (200, Look::Slow(Subject::FunctionReset, 50, 100))
        );
    }

    #[test]
    fn without_a_subject_all_is_fine() {
        let mut watch = Watch::default();

        for _ in 0..100 {
            assert_eq!(watch.look(true, 0, 1), Look::Fine);
        }
    }
}
