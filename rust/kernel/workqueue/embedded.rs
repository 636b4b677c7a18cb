// SPDX-License-Identifier: GPL-2.0

//! Work items that are embedded in the state on which they work.

use super::Queue;
use crate::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        LockClassKey, //
    },
    types::Opaque, //
};
use core::{
    ops::Deref,
    ptr, //
};

/// Creates an initialiser for an [`EmbeddedWork`], with a lock class of its own.
///
/// It takes an initialiser for the state, and a name for lockdep, by default the place of the call.
#[macro_export]
macro_rules! new_embedded_work {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::workqueue::EmbeddedWork::new(
            $inner,
            $crate::optional_name!($($name)?),
            $crate::static_lock_class!(),
        )
    };
}
pub use new_embedded_work;

/// The state of an [`EmbeddedWork`], with the function of the work item.
pub trait EmbeddedWorkItem: Send + Sync + Sized + 'static {
    /// Does the work.
    ///
    /// Runs on the queue on which it was queued, in process context unless that is a BH queue, and
    /// never twice at the same time. It may queue itself again.
    fn run(this: Pin<&EmbeddedWork<Self>>);
}

/// State together with the work item that works on it.
///
/// A [`Work`](super::Work) is queued with a reference-counted pointer, which keeps its owner alive
/// until it has run. An `EmbeddedWork` is queued through a plain reference and keeps nothing alive.
/// It is therefore cancelled when it is dropped: **before** any field of `T` is dropped, the work
/// item is taken off its queue, and if it runs, the drop waits for it. So
/// [`EmbeddedWorkItem::run`] always finds its state whole.
///
/// It can be the content of an [`Arc`](crate::sync::Arc) or a pinned field of a larger structure.
/// It must not be placed on a stack.
///
/// # Context
///
/// Dropping may sleep.
///
/// # Deadlocks
///
/// [`EmbeddedWorkItem::run`] must not drop the last reference to the structure that its own work
/// item is embedded in: the drop would wait for the work item, and the work item for the drop. So
/// `T` had better not contain such a reference. Nor may it call [`EmbeddedWork::flush`] or
/// [`EmbeddedWork::cancel_sync`]. With debug assertions, such a call is a panic.
///
/// # Invariants
///
/// - `work` is an initialised `struct work_struct`, its function is `run_work::<T>`, and it is only
///   queued while `self` is pinned and has not been dropped.
/// - `work` is only queued on `queue`, which does not change once it is not null.
///
/// # Examples
///
/// ```
/// use kernel::{
///     prelude::*,
///     sync::{
///         Arc,
///         SpinLock, //
///     },
///     workqueue::{
///         EmbeddedWork,
///         EmbeddedWorkItem,
///         Queue, //
///     }, //
/// };
///
/// #[pin_data]
/// struct Adder {
///     #[pin]
///     numbers: SpinLock<(u32, u32)>,
/// }
///
/// impl EmbeddedWorkItem for Adder {
///     fn run(this: Pin<&EmbeddedWork<Self>>) {
///         let mut numbers = this.numbers.lock();
///
///         numbers.1 += core::mem::take(&mut numbers.0);
///     }
/// }
///
/// let adder = Arc::pin_init(
///     kernel::new_embedded_work!(pin_init!(Adder {
///         numbers <- kernel::new_spinlock!((0, 0)),
///     })),
///     GFP_KERNEL,
/// )?;
/// let queue = Queue::new_ordered().build(c"example")?;
///
/// adder.numbers.lock().0 = 5;
/// adder.enqueue(&queue);
/// adder.flush();
/// assert_eq!(adder.numbers.lock().1, 5);
/// # Ok::<(), Error>(())
/// ```
#[pin_data(PinnedDrop)]
pub struct EmbeddedWork<T: EmbeddedWorkItem> {
    #[pin]
    work: Opaque<bindings::work_struct>,
    // Only compared.
    queue: Atomic<*mut bindings::workqueue_struct>,
    #[pin]
    inner: T,
}

// SAFETY: A work item may be queued, cancelled and run by any task, and `T` is `Send`.
unsafe impl<T: EmbeddedWorkItem> Send for EmbeddedWork<T> {}

// SAFETY: Operations on a work item are thread-safe, and `T` is `Sync`.
unsafe impl<T: EmbeddedWorkItem> Sync for EmbeddedWork<T> {}

impl<T: EmbeddedWorkItem> EmbeddedWork<T> {
    /// Creates an initialiser. See [`new_embedded_work!`] for a shorter way.
    pub fn new<E>(
        inner: impl PinInit<T, E>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, E> {
        // INVARIANT: `work` is initialised with `run_work::<T>` and not queued, so `queue` is null.
        try_pin_init!(Self {
            work <- Opaque::try_ffi_init(|slot| {
                // SAFETY: `slot` is valid for writing, `name` and `key` live for ever, and
                // `run_work` can be called whenever the work item is queued, which only happens
                // through `Self::enqueue`.
                unsafe {
                    bindings::init_work_with_key(
                        slot,
                        Some(run_work::<T>),
                        false,
                        name.as_char_ptr(),
                        key.as_ptr(),
                    )
                };
                Ok::<(), E>(())
            }),
            queue: Atomic::new(ptr::null_mut()),
            inner <- inner,
        }? E)
    }

    /// Returns the state, pinned. A plain reference dereferences to it.
    #[inline]
    pub fn inner(self: Pin<&Self>) -> Pin<&T> {
        // SAFETY: `inner` is structurally pinned.
        unsafe { self.map_unchecked(|this| &this.inner) }
    }

    /// Queues the work item, and returns whether it was not queued already.
    ///
    /// If it is queued and has not started to run yet, nothing is done. If it is running, it is
    /// queued to run again. In both cases all that the caller did before is visible to the next
    /// [`EmbeddedWorkItem::run`].
    ///
    /// It must always be the same queue: two queues would run the work item at the same time, and
    /// [`flush`](Self::flush) would wait for one of these runs. Another queue than the first is
    /// refused with a warning.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn enqueue(&self, queue: &Queue) -> bool {
        let queue = queue.0.get();

        if !self.is_own(queue) {
            pr_warn!("driver bug: a work item is queued on a second queue\n");
            return false;
        }

        // INVARIANT: Checked above.
        // SAFETY: `queue` is valid while it is borrowed, and its destructor waits for what is
        // queued. By the type invariant, the work item is initialised. It stays valid until it is
        // off the queue and no longer runs, because `Self` is only ever created pinned and its
        // destructor waits for that.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                queue,
                self.work.get(),
            )
        }
    }

    /// Returns whether `queue` is the first on which the work item is queued. Any context.
    #[inline]
    fn is_own(&self, queue: *mut bindings::workqueue_struct) -> bool {
        let mut own = self.queue.load(Relaxed);

        if own.is_null() {
            own = match self.queue.cmpxchg(own, queue, Relaxed) {
                Ok(_) => queue,
                Err(first) => first,
            };
        }
        own == queue
    }

    /// Waits until the work item has run, if it is queued or running.
    ///
    /// It does not wait for another run if the work item is queued again meanwhile.
    ///
    /// # Context
    ///
    /// May sleep. Must not be called by [`EmbeddedWorkItem::run`] itself.
    #[inline]
    pub fn flush(&self) {
        // SAFETY: By the type invariant, the work item is initialised.
        unsafe { flush(self.work.get()) };
    }

    /// Takes the work item off its queue, and if it runs, waits for it.
    ///
    /// Returns whether it was queued. Afterwards it is neither queued nor running, unless another
    /// task queues it; it can be queued again.
    ///
    /// # Context
    ///
    /// May sleep. Must not be called by [`EmbeddedWorkItem::run`] itself.
    #[inline]
    pub fn cancel_sync(&self) -> bool {
        // SAFETY: By the type invariant, the work item is initialised. An `OwnedQueue` waits for
        // its items before it is gone.
        unsafe { cancel_sync(self.work.get()) }
    }
}

impl<T: EmbeddedWorkItem> Deref for EmbeddedWork<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

#[pinned_drop]
impl<T: EmbeddedWorkItem> PinnedDrop for EmbeddedWork<T> {
    fn drop(self: Pin<&mut Self>) {
        // Queueing takes a reference, so no other task can do it any more; and an item that queues
        // itself is cancelled for good.
        self.cancel_sync();
    }
}

/// The function of the work item of an [`EmbeddedWork<T>`].
///
/// # Safety
///
/// `work` must be the work item of a valid, pinned `EmbeddedWork<T>` that stays valid during the
/// call.
unsafe extern "C" fn run_work<T: EmbeddedWorkItem>(work: *mut bindings::work_struct) {
    let work = Opaque::cast_from(work);

    // SAFETY: By the safety requirements of this function, `work` is the field of an
    // `EmbeddedWork<T>`.
    let this = unsafe { crate::container_of!(work, EmbeddedWork<T>, work) };

    // SAFETY: By the safety requirements of this function, `this` is valid during the call, and
    // pinned.
    let this = unsafe { Pin::new_unchecked(&*this) };

    T::run(this);
}

/// Waits for a work item.
///
/// # Safety
///
/// `work` must be an initialised work item that stays valid during the call.
unsafe fn flush(work: *mut bindings::work_struct) {
    assert_not_current(work);

    // SAFETY: By the safety requirements of this function.
    unsafe { bindings::flush_work(work) };
}

/// Cancels a work item.
///
/// # Safety
///
/// As for [`flush`]. If `work` is on a queue that is being destroyed, destroying must wait for it.
unsafe fn cancel_sync(work: *mut bindings::work_struct) -> bool {
    assert_not_current(work);

    // SAFETY: By the safety requirements of this function.
    unsafe { bindings::cancel_work_sync(work) }
}

/// Panics, instead of a deadlock, if a work item waits for itself.
fn assert_not_current(work: *mut bindings::work_struct) {
    // SAFETY: This function can always be called.
    debug_assert!(unsafe { bindings::current_work() } != work);
}

#[kunit_tests(rust_embedded_work)]
mod tests {
    use super::{
        super::OwnedQueue,
        *, //
    };
    use crate::{
        sync::{
            Arc,
            Completion, //
        },
        time::{
            delay::fsleep,
            Delta, //
        },
        workqueue::{
            Work,
            WorkItem, //
        }, //
    };

    /// What the work item records; it outlives the work item.
    #[pin_data]
    struct Notes {
        started: Atomic<u32>,
        finished: Atomic<u32>,
        /// How often the state had been dropped while its work was running.
        dangling: Atomic<u32>,
        dropped: Atomic<u32>,
        #[pin]
        first: Completion,
    }

    impl Notes {
        fn new() -> Result<Arc<Self>> {
            Arc::pin_init(
                pin_init!(Self {
                    started: Atomic::new(0),
                    finished: Atomic::new(0),
                    dangling: Atomic::new(0),
                    dropped: Atomic::new(0),
                    first <- Completion::new(),
                }),
                GFP_KERNEL,
            )
        }
    }

    struct State {
        notes: Arc<Notes>,
        /// The queue on which the work item queues itself again, for ever.
        again: Option<Arc<OwnedQueue>>,
    }

    impl EmbeddedWorkItem for State {
        fn run(this: Pin<&EmbeddedWork<Self>>) {
            let notes = &this.notes;

            notes.started.fetch_add(1, Relaxed);
            notes.first.complete();
            fsleep(Delta::from_millis(2));
            notes
                .dangling
                .fetch_add(notes.dropped.load(Relaxed), Relaxed);
            notes.finished.fetch_add(1, Relaxed);
            if let Some(queue) = &this.again {
                this.enqueue(&**queue);
            }
        }
    }

    impl Drop for State {
        fn drop(&mut self) {
            self.notes.dropped.fetch_add(1, Relaxed);
        }
    }

    fn embedded(
        notes: &Arc<Notes>,
        again: Option<Arc<OwnedQueue>>,
    ) -> Result<Pin<KBox<EmbeddedWork<State>>>> {
        let state = State {
            notes: notes.clone(),
            again,
        };

        KBox::pin_init(new_embedded_work!(state, "kunit_embedded"), GFP_KERNEL)
    }

    /// Keeps an ordered queue busy until `let_go` is completed.
    #[pin_data]
    struct Blocker {
        #[pin]
        let_go: Completion,
        #[pin]
        work: Work<Blocker>,
    }

    impl_has_work! {
        impl HasWork<Self> for Blocker { self.work }
    }

    impl WorkItem for Blocker {
        type Pointer = Arc<Blocker>;

        fn run(this: Arc<Blocker>) {
            this.let_go.wait_for_completion();
        }
    }

    impl Blocker {
        fn block(queue: &Queue) -> Result<Arc<Self>> {
            let this = Arc::pin_init(
                pin_init!(Self {
                    let_go <- Completion::new(),
                    work <- new_work!("Blocker::work"),
                }),
                GFP_KERNEL,
            )?;

            queue.enqueue(this.clone()).map_err(|_| EBUSY)?;
            Ok(this)
        }
    }

    #[test]
    fn queueing_twice_runs_once() -> Result {
        let notes = Notes::new()?;
        let queue = Queue::new_ordered().build(c"kunit-embedded")?;
        let work = embedded(&notes, None)?;
        let blocker = Blocker::block(&queue)?;

        let first = work.enqueue(&queue);
        let second = work.enqueue(&queue);
        let third = work.enqueue(&queue);
        blocker.let_go.complete_all();
        work.flush();

        assert!(first && !second && !third);
        assert_eq!(notes.finished.load(Relaxed), 1);

        // It can be queued again.
        assert!(work.enqueue(&queue));
        work.flush();
        assert_eq!(notes.finished.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn second_queue_is_refused() -> Result {
        let notes = Notes::new()?;
        let queue = Queue::new_ordered().build(c"kunit-embedded")?;
        let work = embedded(&notes, None)?;

        work.enqueue(&queue);
        notes.first.wait_for_completion();
        assert!(!work.enqueue(crate::workqueue::system_long()));
        drop(work);

        assert_eq!(notes.started.load(Relaxed), 1);
        assert_eq!(notes.dangling.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn queueing_while_running_runs_again() -> Result {
        let notes = Notes::new()?;
        let queue = Queue::new_ordered().build(c"kunit-embedded")?;
        let work = embedded(&notes, None)?;

        work.enqueue(&queue);
        notes.first.wait_for_completion();
        work.enqueue(&queue);
        work.flush();

        assert_eq!(notes.finished.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn dropping_cancels() -> Result {
        let notes = Notes::new()?;
        let queue = Queue::new_ordered().build(c"kunit-embedded")?;
        let work = embedded(&notes, None)?;
        let blocker = Blocker::block(&queue)?;

        work.enqueue(&queue);
        drop(work);
        blocker.let_go.complete_all();
        drop(queue);

        assert_eq!(notes.started.load(Relaxed), 0);
        assert_eq!(notes.dropped.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn dropping_waits_for_a_run() -> Result {
        let notes = Notes::new()?;
        let queue = Queue::new_ordered().build(c"kunit-embedded")?;
        let work = embedded(&notes, None)?;

        work.enqueue(&queue);
        notes.first.wait_for_completion();
        drop(work);

        assert_eq!(notes.finished.load(Relaxed), 1);
        assert_eq!(notes.dangling.load(Relaxed), 0);
        assert_eq!(notes.dropped.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn dropping_stops_what_queues_itself() -> Result {
        let notes = Notes::new()?;
        let queue = Arc::new(Queue::new_ordered().build(c"kunit-embedded")?, GFP_KERNEL)?;
        let work = embedded(&notes, Some(queue.clone()))?;

        work.enqueue(&*queue);
        for _ in 0..3 {
            notes.first.wait_for_completion();
        }
        drop(work);
        let finished = notes.finished.load(Relaxed);

        drop(queue);
        assert!(finished >= 3);
        assert_eq!(notes.started.load(Relaxed), finished);
        assert_eq!(notes.finished.load(Relaxed), finished);
        assert_eq!(notes.dangling.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn cancelling_returns_whether_it_was_queued() -> Result {
        let notes = Notes::new()?;
        let queue = Queue::new_ordered().build(c"kunit-embedded")?;
        let work = embedded(&notes, None)?;
        let blocker = Blocker::block(&queue)?;

        work.enqueue(&queue);
        let queued = work.cancel_sync();
        let still_queued = work.cancel_sync();
        blocker.let_go.complete_all();
        drop(queue);

        assert!(queued && !still_queued);
        assert_eq!(notes.started.load(Relaxed), 0);
        Ok(())
    }
}
