// SPDX-License-Identifier: GPL-2.0

//! Timers that are embedded in the state on which they work.

use super::{
    AbsoluteMode,
    HasHrTimer,
    HrTimer,
    HrTimerCallback,
    HrTimerCallbackContext,
    HrTimerRestart, //
};
use crate::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use core::{
    convert::Infallible,
    ops::Deref, //
};

/// Returns the resolution of timers: a nanosecond, or a tick where timers expire only at ticks. A
/// kernel with `CONFIG_HIGH_RES_TIMERS` begins with the latter.
///
/// # Context
///
/// Any context.
///
/// # Examples
///
/// ```
/// use kernel::time::hrtimer;
///
/// assert!(hrtimer::resolution().as_nanos() > 0);
/// ```
#[doc(alias = "hrtimer_resolution")]
#[inline]
pub fn resolution() -> Delta {
    // SAFETY: This function can always be called.
    Delta::from_nanos(unsafe { bindings::hrtimer_get_resolution() }.into())
}

/// The state of an [`EmbeddedTimer`], with the timer's function.
pub trait EmbeddedTimerItem: Send + Sync + Sized + 'static {
    /// The timer has expired. It may start itself again.
    ///
    /// # Context
    ///
    /// Hard interrupt, or a softirq thread with `PREEMPT_RT`. Never twice at the same time.
    fn expired(this: Pin<&EmbeddedTimer<Self>>);
}

/// State together with a timer that works on it.
///
/// A timer that is [started](super::HrTimerPointer::start) through an [`Arc`](crate::sync::Arc) is
/// cancelled by the handle that this returns, and which has to be kept. An `EmbeddedTimer` is
/// started through a plain reference, also while it is started already, and keeps nothing alive. It
/// is therefore cancelled when it is dropped: **before** any field of `T` is dropped, the timer is
/// stopped, and if its function runs, the drop waits for that.
///
/// It can be the content of an `Arc` or a pinned field of a larger structure. It must not be placed
/// on a stack.
///
/// # Context
///
/// Dropping may sleep with `PREEMPT_RT`.
///
/// # Deadlocks
///
/// The drop must not happen in [`EmbeddedTimerItem::expired`], nor under a lock that it takes.
///
/// # Examples
///
/// ```
/// use kernel::{
///     prelude::*,
///     sync::{
///         Arc,
///         Completion, //
///     },
///     time::{
///         hrtimer::{
///             EmbeddedTimer,
///             EmbeddedTimerItem, //
///         },
///         Delta,
///         Instant, //
///     },
/// };
///
/// #[pin_data]
/// struct Alarm {
///     #[pin]
///     rang: Completion,
/// }
///
/// impl EmbeddedTimerItem for Alarm {
///     fn expired(this: Pin<&EmbeddedTimer<Self>>) {
///         this.rang.complete_all();
///     }
/// }
///
/// let alarm = Arc::pin_init(
///     EmbeddedTimer::new(pin_init!(Alarm {
///         rang <- Completion::new(),
///     })),
///     GFP_KERNEL,
/// )?;
///
/// alarm.start(Instant::now() + Delta::from_micros(200));
/// alarm.rang.wait_for_completion();
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "hrtimer")]
#[pin_data(PinnedDrop)]
pub struct EmbeddedTimer<T: EmbeddedTimerItem> {
    #[pin]
    timer: HrTimer<Self>,
    #[pin]
    inner: T,
}

impl<T: EmbeddedTimerItem> EmbeddedTimer<T> {
    /// Creates an initialiser.
    pub fn new<E: From<Infallible>>(inner: impl PinInit<T, E>) -> impl PinInit<Self, E> {
        try_pin_init!(Self {
            timer <- HrTimer::new(),
            inner <- inner,
        }? E)
    }

    /// Starts the timer: [`EmbeddedTimerItem::expired`] is called at this time. If it is started
    /// already, the former time is void.
    ///
    /// # Context
    ///
    /// Any context but NMI, also in the timer's own function, and under a lock that it takes.
    #[doc(alias = "hrtimer_start")]
    #[inline]
    pub fn start(&self, expires: Instant<Monotonic>) {
        // SAFETY: `self` is pinned, because it is only ever created pinned, and it stays valid
        // until the timer's function has returned for the last time: the destructor waits for that.
        unsafe { <Self as HasHrTimer<Self>>::start(self, expires) };
    }

    /// Stops the timer if it has not expired yet; returns whether it was stopped. While its
    /// function runs, it neither waits for it nor stops a timer that was started again meanwhile.
    ///
    /// # Context
    ///
    /// As for [`start`](Self::start).
    #[doc(alias = "hrtimer_try_to_cancel")]
    #[inline]
    pub fn try_cancel(&self) -> bool {
        // SAFETY: `self` is valid, and its timer was initialised when `self` was created.
        unsafe { bindings::hrtimer_try_to_cancel(Self::c_timer_ptr(self).cast_mut()) == 1 }
    }
}

impl<T: EmbeddedTimerItem> Deref for EmbeddedTimer<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: EmbeddedTimerItem> HrTimerCallback for EmbeddedTimer<T> {
    type Pointer<'a> = Pin<&'a Self>;

    fn run(this: Pin<&Self>, _context: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        T::expired(this);
        HrTimerRestart::NoRestart
    }
}

crate::impl_has_hr_timer! {
    impl{T: EmbeddedTimerItem} HasHrTimer<Self> for EmbeddedTimer<T> {
        mode: AbsoluteMode<Monotonic>, field: self.timer
    }
}

#[pinned_drop]
impl<T: EmbeddedTimerItem> PinnedDrop for EmbeddedTimer<T> {
    fn drop(self: Pin<&mut Self>) {
        // Starting takes a reference, so no other task can do it any more; and a timer that starts
        // itself is cancelled for good.
        // SAFETY: `self.timer` is valid.
        unsafe { HrTimer::raw_cancel(&self.timer) };
    }
}

#[kunit_tests(rust_embedded_timer)]
mod tests {
    use super::*;
    use crate::{
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Arc, //
        },
        time::{
            delay::fsleep,
            Delta, //
        },
    };

    /// What the timer's function records; it outlives the timer.
    struct Notes {
        expired: Atomic<u32>,
        dropped: Atomic<u32>,
        /// How often the state had been dropped when the timer expired.
        dangling: Atomic<u32>,
    }

    struct State {
        notes: Arc<Notes>,
        /// How often the timer starts itself.
        again: u32,
    }

    impl EmbeddedTimerItem for State {
        fn expired(this: Pin<&EmbeddedTimer<Self>>) {
            let notes = &this.notes;

            notes
                .dangling
                .fetch_add(notes.dropped.load(Relaxed), Relaxed);
            if notes.expired.fetch_add(1, Relaxed) < this.again {
                this.start(in_millis(1));
            }
        }
    }

    impl Drop for State {
        fn drop(&mut self) {
            self.notes.dropped.fetch_add(1, Relaxed);
        }
    }

    fn in_millis(millis: i64) -> Instant<Monotonic> {
        Instant::now() + Delta::from_millis(millis)
    }

    fn wait_millis(millis: i64) {
        fsleep(Delta::from_millis(millis));
    }

    type Timer = Pin<KBox<EmbeddedTimer<State>>>;

    fn timer(again: u32) -> Result<(Timer, Arc<Notes>)> {
        let notes = Arc::new(
            Notes {
                expired: Atomic::new(0),
                dropped: Atomic::new(0),
                dangling: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        let state = State {
            notes: notes.clone(),
            again,
        };

        Ok((
            KBox::pin_init(EmbeddedTimer::new(state), GFP_KERNEL)?,
            notes,
        ))
    }

    #[test]
    fn expires_once_for_each_start() -> Result {
        let (timer, notes) = timer(0)?;

        for count in 1..4 {
            timer.start(in_millis(2));
            wait_millis(5);
            assert_eq!(notes.expired.load(Relaxed), count);
        }
        Ok(())
    }

    #[test]
    fn another_start_moves_it() -> Result {
        let (timer, notes) = timer(0)?;

        timer.start(in_millis(2));
        timer.start(in_millis(1000 * 1000));
        wait_millis(5);
        assert_eq!(notes.expired.load(Relaxed), 0);

        timer.start(in_millis(2));
        wait_millis(5);
        assert_eq!(notes.expired.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn starts_itself() -> Result {
        let (timer, notes) = timer(2)?;

        timer.start(in_millis(1));
        wait_millis(100);
        assert_eq!(notes.expired.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn cancelling_returns_whether_it_was_started() -> Result {
        let (timer, notes) = timer(0)?;

        assert!(!timer.try_cancel());
        timer.start(in_millis(2));
        assert!(timer.try_cancel());
        assert!(!timer.try_cancel());
        wait_millis(5);
        assert_eq!(notes.expired.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn dropping_cancels() -> Result {
        let (timer, notes) = timer(u32::MAX)?;

        timer.start(in_millis(1));
        wait_millis(5);
        drop(timer);
        let expired = notes.expired.load(Relaxed);

        wait_millis(5);
        assert!(expired > 0);
        assert_eq!(notes.expired.load(Relaxed), expired);
        assert_eq!(notes.dropped.load(Relaxed), 1);
        assert_eq!(notes.dangling.load(Relaxed), 0);
        Ok(())
    }
}
