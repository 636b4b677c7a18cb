// SPDX-License-Identifier: GPL-2.0

//! The one limit on waiting: a device that makes no progress while it is removed, suspended, reset
//! or recovered.
//!
//! In normal service a caller waits as long as the host takes. But a task that stops the device
//! holds its lock and cannot be interrupted, so its wait is bounded: from before it begins to wait
//! until the device works again or is gone, a timer checks the flush path.

use crate::flush::FlushPath;
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

/// How often the timer checks.
const CHECKS_PER_SECOND: u32 = 4;

/// Why a device is watched.
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

    /// The smallest limit, in seconds. PCI waits 60 s for a function to come back from a reset.
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

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// There was no progress for this many seconds, half of the limit that follows or more.
    /// Returned once until the next answer.
    Slow(Subject, u32, u32),
    GiveUp,
}

/// What is watched, and what the checks have found so far.
#[derive(Default)]
pub(crate) struct Watch {
    subject: Option<(Subject, Expiry)>,
    /// How many answers there were at the last check.
    answers: u64,
    /// How many checks in a row found callers waiting and no new answer.
    silent: u32,
    /// [`Verdict::Slow`] was returned since the last answer.
    reported: bool,
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

    /// Whether the wait is to end, by [`Expiry::EndWait`].
    pub(crate) fn has_expired(&self) -> bool {
        self.expired
    }

    /// Checks for progress: `is_busy` is whether callers wait or an answer is to come, `answers`
    /// how many have come, `timeout` the limit in seconds, which may change during the watch.
    pub(crate) fn check(&mut self, is_busy: bool, answers: u64, timeout: u32) -> Verdict {
        let Some((subject, expiry)) = self.subject else {
            return Verdict::Fine;
        };
        let limit = timeout.max(subject.least());
        let checks = limit.saturating_mul(CHECKS_PER_SECOND);

        if !is_busy || answers != self.answers {
            self.answers = answers;
            self.silent = 0;
            self.reported = false;
            return Verdict::Fine;
        }
        self.silent = self.silent.saturating_add(1);
        // The first of these checks may have come just after a caller.
        if self.silent > checks {
            if expiry == Expiry::GiveUp {
                return Verdict::GiveUp;
            }
            self.expired = true;
        } else if self.silent >= checks / 2 && !mem::replace(&mut self.reported, true) {
            return Verdict::Slow(subject, self.silent / CHECKS_PER_SECOND, limit);
        }
        Verdict::Fine
    }
}

/// The timer of one device.
#[pin_data]
pub(crate) struct Watchdog {
    flush: Arc<FlushPath>,
    #[pin]
    timer: HrTimer<Self>,
    /// The timer runs as long as this is here.
    #[pin]
    running: Mutex<Option<ArcHrTimerHandle<Self>>>,
}

impl Watchdog {
    pub(crate) fn new(flush: Arc<FlushPath>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                flush,
                timer <- HrTimer::new(),
                running <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )
    }

    /// Watches the flush path until [`stop`](Self::stop), in place of an earlier watch. May sleep.
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
    Delta::from_millis((1000 / CHECKS_PER_SECOND).into())
}

impl HrTimerCallback for Watchdog {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        this.flush.check_progress();
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

    /// Returns how many checks without an answer it takes until one finds something.
    fn checks_until(watch: &mut Watch, timeout: u32) -> (u32, Verdict) {
        (1..)
            .map(|n| (n, watch.check(true, 0, timeout)))
            .find(|(_, verdict)| *verdict != Verdict::Fine)
            .unwrap_or((0, Verdict::Fine))
    }

    #[test]
    fn warns_at_half_time_and_then_gives_up() {
        let mut watch = Watch::new(Subject::Removal, Expiry::GiveUp, 0);

        assert_eq!(
            checks_until(&mut watch, 10),
            (20, Verdict::Slow(Subject::Removal, 5, 10))
        );
        assert_eq!(checks_until(&mut watch, 10), (21, Verdict::GiveUp));
    }

    #[test]
    fn an_answer_begins_it_anew() {
        let mut watch = Watch::new(Subject::Removal, Expiry::GiveUp, 0);

        for answers in 0..100 {
            for _ in 0..39 {
                assert_ne!(watch.check(true, answers, 10), Verdict::GiveUp);
            }
        }
        assert_eq!(watch.check(false, 99, 10), Verdict::Fine);
        assert_eq!(watch.silent, 0);
    }

    #[test]
    fn a_wait_ends_without_giving_up() {
        let mut watch = Watch::new(Subject::Removal, Expiry::EndWait, 0);

        for _ in 0..40 {
            let _ = watch.check(true, 0, 10);
        }
        assert!(!watch.has_expired());
        assert_eq!(watch.check(true, 0, 10), Verdict::Fine);
        assert!(watch.has_expired());
    }

    #[test]
    fn the_limit_can_be_changed() {
        let mut watch = Watch::new(Subject::Removal, Expiry::GiveUp, 0);

        for _ in 0..30 {
            assert_eq!(watch.check(true, 0, 1000), Verdict::Fine);
        }
        assert_eq!(
            watch.check(true, 0, 10),
            Verdict::Slow(Subject::Removal, 7, 10)
        );
        assert_eq!(watch.check(true, 0, 1000), Verdict::Fine);
        assert_eq!(watch.check(true, 0, 5), Verdict::GiveUp);
    }

    #[test]
    fn a_function_reset_has_its_time() {
        let mut watch = Watch::new(Subject::FunctionReset, Expiry::GiveUp, 0);

        assert_eq!(
            checks_until(&mut watch, 1),
            (200, Verdict::Slow(Subject::FunctionReset, 50, 100))
        );
    }

    #[test]
    fn without_a_subject_all_is_fine() {
        let mut watch = Watch::default();

        for _ in 0..100 {
            assert_eq!(watch.check(true, 0, 1), Verdict::Fine);
        }
    }
}
