// SPDX-License-Identifier: GPL-2.0

//! Work items that are embedded in the state on which they work.

use super::{
    HasWork,
    Queue,
    RawWorkItem,
    Work,
    WorkItem,
    WorkItemPointer, //
};
use crate::{
    prelude::*,
    sync::{
        LockClassKey,
        SpinLockIrq, //
    }, //
};
use core::{
    convert::Infallible,
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    }, //
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
/// A [`Work`] is queued with a reference-counted pointer, which keeps its owner alive until it has
/// run. An `EmbeddedWork` is queued through a plain reference and keeps nothing alive. It is
/// therefore cancelled when it is dropped: **before** any field of `T` is dropped, the work item is
/// taken off its queue, and if it runs, the drop waits for it. So [`EmbeddedWorkItem::run`] always
/// finds its state whole.
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
/// - The work item is only queued while `self` is pinned and has not been dropped.
/// - It is queued or running on one queue at most, the one with the address in `queue`.
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
#[doc(alias = "work_struct")]
#[pin_data(PinnedDrop)]
pub struct EmbeddedWork<T: EmbeddedWorkItem> {
    #[pin]
    work: Work<Self>,
    #[pin]
    queue: SpinLockIrq<usize>,
    #[pin]
    inner: T,
}

crate::impl_has_work! {
    impl{T: EmbeddedWorkItem} HasWork<Self> for EmbeddedWork<T> { self.work }
}

impl<T: EmbeddedWorkItem> EmbeddedWork<T> {
    /// Creates an initialiser. See [`new_embedded_work!`] for a shorter way.
    ///
    /// The keys are those of the work item and of a lock beside it.
    pub fn new<E: From<Infallible>>(
        inner: impl PinInit<T, E>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
        lock_key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, E> {
        // INVARIANT: The work item is not queued.
        try_pin_init!(Self {
            work <- Work::new(name, key),
            // Not by `new_spinlock_irq!`: all crates would share its key, each with its own copy of
            // the name, and lockdep compares the names' addresses.
            queue <- SpinLockIrq::new(0, name, lock_key),
            inner <- inner,
        }? E)
    }

    /// Queues the work item, and returns whether it was not queued already.
    ///
    /// If it is queued and has not started to run yet, nothing is done. If it is running, it is
    /// queued to run again. In both cases all that the caller did before is visible to the next
    /// [`EmbeddedWorkItem::run`].
    ///
    /// It must be the same queue until the work item has run or was cancelled: two queues would run
    /// it at the same time, and [`flush`](Self::flush) would wait for one of these runs. A second
    /// queue is refused with a warning.
    ///
    /// # Context
    ///
    /// Any context but NMI; with `PREEMPT_RT` no hard interrupt.
    #[doc(alias = "queue_work")]
    #[inline]
    pub fn enqueue(&self, queue: &Queue) -> bool {
        let address = ptr::from_ref(queue).addr();
        let mut own = self.queue.lock();

        if *own != address && self.is_busy() {
            drop(own);
            pr_warn!("driver bug: a work item is queued on a second queue\n");
            return false;
        }

        // INVARIANT: Checked above; the lock excludes other queues until it is queued.
        *own = address;
        queue.enqueue(Embedded(NonNull::from(self)))
    }

    fn as_raw(&self) -> *mut bindings::work_struct {
        // SAFETY: `work` is valid.
        unsafe { Work::raw_get(&raw const self.work) }
    }

    /// Returns whether the work item is queued or running. The caller keeps it from being queued.
    fn is_busy(&self) -> bool {
        // SAFETY: The work item is initialised. The result is reliable while it is not being
        // queued, because by the type invariant there is no run on another queue.
        unsafe { bindings::work_busy(self.as_raw()) != 0 }
    }

    /// Waits until the work item has run, if it is queued or running.
    ///
    /// It does not wait for another run if the work item is queued again meanwhile.
    ///
    /// # Context
    ///
    /// May sleep. Must not be called by [`EmbeddedWorkItem::run`] itself.
    #[doc(alias = "flush_work")]
    pub fn flush(&self) {
        self.assert_not_current();

        // SAFETY: The work item is initialised, and stays valid during the call.
        unsafe { bindings::flush_work(self.as_raw()) };
    }

    /// Takes the work item off its queue, and if it runs, waits for it.
    ///
    /// Returns whether it was queued. Afterwards it is neither queued nor running, unless another
    /// task queues it; it can be queued again.
    ///
    /// # Context
    ///
    /// May sleep. Must not be called by [`EmbeddedWorkItem::run`] itself.
    #[doc(alias = "cancel_work_sync")]
    pub fn cancel_sync(&self) -> bool {
        self.assert_not_current();

        // SAFETY: The work item is initialised, and stays valid during the call. An `OwnedQueue`
        // waits for its items before it is gone, and other queues stay.
        unsafe { bindings::cancel_work_sync(self.as_raw()) }
    }

    /// Panics, instead of a deadlock, if a work item waits for itself.
    fn assert_not_current(&self) {
        // SAFETY: This function can always be called.
        debug_assert!(unsafe { bindings::current_work() } != self.as_raw());
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

/// The pointer by which the work item of an [`EmbeddedWork`] is queued and run.
///
/// It is known in this module only: [`WorkItem::Pointer`] has no lifetime, so a work function that
/// got one could keep it.
///
/// # Invariants
///
/// The `EmbeddedWork` is pinned, and valid until it has been queued or run.
pub struct Embedded<T: EmbeddedWorkItem>(NonNull<EmbeddedWork<T>>);

// SAFETY: An `EmbeddedWork` may be queued and run by any task.
unsafe impl<T: EmbeddedWorkItem> Send for Embedded<T> {}

// SAFETY: The work item is that of an `EmbeddedWork`, whose destructor cancels it and waits for it.
unsafe impl<T: EmbeddedWorkItem> RawWorkItem<0> for Embedded<T> {
    type EnqueueOutput = bool;

    unsafe fn __enqueue<F>(self, queue_work_on: F) -> bool
    where
        F: FnOnce(*mut bindings::work_struct) -> bool,
    {
        // SAFETY: By the type invariant the `EmbeddedWork` is valid.
        queue_work_on(unsafe { self.0.as_ref() }.as_raw())
    }
}

// SAFETY: `Work::new()` gives `run` to the work item that `__enqueue` uses.
unsafe impl<T: EmbeddedWorkItem> WorkItemPointer<0> for Embedded<T> {
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: `work` is from `__enqueue`, and thus the field of an `EmbeddedWork<T>`.
        let this = unsafe { EmbeddedWork::<T>::work_container_of(work.cast()) };

        // INVARIANT: The destructor waits for this function.
        // SAFETY: A pointer to a structure around a valid field is not null.
        EmbeddedWork::run(Self(unsafe { NonNull::new_unchecked(this) }));
    }
}

impl<T: EmbeddedWorkItem> WorkItem for EmbeddedWork<T> {
    type Pointer = Embedded<T>;

    fn run(this: Embedded<T>) {
        // SAFETY: By the type invariant it is valid, and pinned.
        T::run(unsafe { Pin::new_unchecked(this.0.as_ref()) });
    }
}

#[kunit_tests(rust_embedded_work)]
mod tests {
    use super::*;
    use crate::{
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Arc,
            Completion, //
        },
        time::{
            delay::fsleep,
            Delta, //
        },
        workqueue::{
            system_long,
            OwnedQueue, //
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
                this.enqueue(queue);
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
        let blocker = Blocker::block(&queue)?;

        work.enqueue(&queue);
        let second = work.enqueue(system_long());
        blocker.let_go.complete_all();
        work.flush();

        assert!(!second);
        assert_eq!(notes.started.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn queued_again_elsewhere() -> Result {
        let notes = Notes::new()?;
        let work = embedded(&notes, None)?;
        let queue = Queue::new_ordered().build(c"kunit-embedded")?;

        assert!(work.enqueue(&queue));
        drop(queue);
        // On a queue that was cancelled.
        let queue = Queue::new_ordered().build(c"kunit-embedded-2")?;
        let blocker = Blocker::block(&queue)?;
        assert!(work.enqueue(&queue));
        assert!(work.cancel_sync());
        blocker.let_go.complete_all();

        assert!(work.enqueue(system_long()));
        work.flush();
        assert_eq!(notes.finished.load(Relaxed), 2);
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

        work.enqueue(&queue);
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
