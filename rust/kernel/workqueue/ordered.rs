// SPDX-License-Identifier: GPL-2.0

//! Ordered work queues that are created and owned by Rust code.

use super::{
    Queue,
    RawWorkItem, //
};
use crate::{
    alloc::AllocError,
    prelude::*, //
};
use core::ptr::NonNull;

mod private {
    /// Keeps other types from implementing [`WorkQueue`](super::WorkQueue).
    pub trait Sealed {}

    impl Sealed for super::Queue {}
    impl Sealed for super::OrderedQueue {}
}

/// A queue on which an [`EmbeddedWork`](super::EmbeddedWork) can be queued.
///
/// It is implemented by [`Queue`], whose instances are never destroyed, and by [`OrderedQueue`],
/// which is destroyed when it is dropped.
pub trait WorkQueue: private::Sealed {
    /// Returns the C queue; it is valid as long as `self` is borrowed.
    #[doc(hidden)]
    fn as_raw(&self) -> *mut bindings::workqueue_struct;
}

impl WorkQueue for Queue {
    #[inline]
    fn as_raw(&self) -> *mut bindings::workqueue_struct {
        self.0.get()
    }
}

impl WorkQueue for OrderedQueue {
    #[inline]
    fn as_raw(&self) -> *mut bindings::workqueue_struct {
        self.0.as_ptr()
    }
}

/// An owned work queue that runs one work item at a time, in the order in which they were queued.
///
/// It is made by [`OrderedQueue::builder`]. Dropping it waits until all queued work items, and
/// those that they queue in turn, have run, and then destroys it.
///
/// An `OrderedQueue` is deliberately no [`Queue`]: a [`Queue`] also takes delayed work items, whose
/// timers could fire after the queue was destroyed.
///
/// # Deadlocks
///
/// A work item must never drop the last reference to the queue on which it runs: the queue would
/// wait for the work item and the work item for the queue. So a work item of the queue should not
/// hold a reference-counted pointer to the owner of the queue; an
/// [`EmbeddedWork`](super::EmbeddedWork) holds none.
///
/// A [freezable](OrderedQueueBuilder::freezable) queue that is dropped while tasks are frozen
/// waits until they are thawed.
///
/// # Invariants
///
/// `self.0` is a valid work queue that was allocated by `alloc_ordered_workqueue()`, and only
/// `self` destroys it.
///
/// # Examples
///
/// ```
/// use kernel::{
///     impl_has_work,
///     new_work,
///     prelude::*,
///     sync::{
///         atomic::{
///             Atomic,
///             Relaxed, //
///         },
///         Arc, //
///     },
///     workqueue::{
///         OrderedQueue,
///         Work,
///         WorkItem, //
///     }, //
/// };
///
/// #[pin_data]
/// struct Job {
///     done: Atomic<u32>,
///     #[pin]
///     work: Work<Job>,
/// }
///
/// impl_has_work! {
///     impl HasWork<Self> for Job { self.work }
/// }
///
/// impl WorkItem for Job {
///     type Pointer = Arc<Job>;
///
///     fn run(this: Arc<Job>) {
///         this.done.store(1, Relaxed);
///     }
/// }
///
/// let queue = OrderedQueue::builder().mem_reclaim().build(c"example")?;
/// let job = Arc::pin_init(
///     pin_init!(Job {
///         done: Atomic::new(0),
///         work <- new_work!("Job::work"),
///     }),
///     GFP_KERNEL,
/// )?;
///
/// assert!(queue.enqueue(job.clone()).is_ok());
/// drop(queue);
/// assert_eq!(job.done.load(Relaxed), 1);
/// # Ok::<(), Error>(())
/// ```
pub struct OrderedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A work queue may be destroyed by another task than the one that allocated it.
unsafe impl Send for OrderedQueue {}

// SAFETY: Queueing on and flushing a work queue is thread-safe.
unsafe impl Sync for OrderedQueue {}

impl OrderedQueue {
    /// Begins the description of a queue.
    #[inline]
    pub const fn builder() -> OrderedQueueBuilder {
        OrderedQueueBuilder { flags: 0 }
    }

    /// Queues a work item, like [`Queue::enqueue`].
    ///
    /// It may fail if the work item is queued already.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the type invariant the queue is valid, and it stays so while `self` is
        // borrowed. `Queue::enqueue` does not leave anything behind that `drop` would not wait
        // for.
        unsafe { Queue::from_raw(self.0.as_ptr()) }.enqueue(work)
    }

    /// Waits until all work items that were queued before the call have run.
    ///
    /// It does not wait for items that are queued meanwhile, also by the items that it waits for.
    ///
    /// # Context
    ///
    /// May sleep. Must not be called by one of the queue's own work items.
    #[inline]
    pub fn flush(&self) {
        // SAFETY: By the type invariant the queue is valid.
        unsafe { bindings::__flush_workqueue(self.0.as_ptr()) };
    }
}

impl Drop for OrderedQueue {
    /// Waits for all work items and destroys the queue. May sleep.
    fn drop(&mut self) {
        // SAFETY: By the type invariant the queue is valid and only `self` destroys it. Queueing
        // takes a borrow of `self`, so only the queue's own items can still queue items, and
        // destroying waits for them. Delayed items, for which it would not wait, cannot be queued.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// Describes an [`OrderedQueue`] that is to be created.
///
/// It has only the attributes that are valid for an ordered queue.
///
/// # Examples
///
/// ```
/// use kernel::workqueue::OrderedQueue;
///
/// let queue = OrderedQueue::builder()
///     .mem_reclaim()
///     .freezable()
///     .build(c"example")?;
/// # queue.flush();
/// # Ok::<(), Error>(())
/// ```
#[must_use = "the queue is created by `build`"]
#[derive(Clone, Copy)]
pub struct OrderedQueueBuilder {
    flags: c_uint,
}

impl OrderedQueueBuilder {
    /// Guarantees progress under memory pressure (`WQ_MEM_RECLAIM`).
    ///
    /// For a queue on which freeing memory may depend, such as one that finishes write-back. Its
    /// work items must then not wait for memory themselves.
    #[inline]
    pub const fn mem_reclaim(mut self) -> Self {
        self.flags |= bindings::wq_flags_WQ_MEM_RECLAIM;
        self
    }

    /// Runs no work item while the system is suspended or hibernated (`WQ_FREEZABLE`).
    #[inline]
    pub const fn freezable(mut self) -> Self {
        self.flags |= bindings::wq_flags_WQ_FREEZABLE;
        self
    }

    /// Creates the queue.
    ///
    /// The name is copied, and cut if it has more than `WQ_NAME_LEN - 1` bytes.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if there is no memory, or if the rescuer thread that
    /// [`mem_reclaim`](Self::mem_reclaim) needs could not be created.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn build(self, name: &CStr) -> Result<OrderedQueue, AllocError> {
        // SAFETY: `name` is a valid C string. `self.flags` only holds flags that an ordered queue
        // may have.
        let queue = unsafe { bindings::alloc_ordered_workqueue(name.as_char_ptr(), self.flags) };

        // INVARIANT: The queue was just allocated, and this is its only owner.
        Ok(OrderedQueue(NonNull::new(queue).ok_or(AllocError)?))
    }
}

#[kunit_tests(rust_ordered_queue)]
mod tests {
    use super::*;
    use crate::{
        new_spinlock,
        sync::{
            Arc,
            SpinLock, //
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

    /// What the jobs of a test record.
    struct Notes {
        running: u32,
        overlaps: u32,
        order: KVec<u32>,
    }

    #[pin_data]
    struct Job {
        number: u32,
        notes: Arc<SpinLock<Notes>>,
        #[pin]
        work: Work<Job>,
    }

    impl_has_work! {
        impl HasWork<Self> for Job { self.work }
    }

    impl WorkItem for Job {
        type Pointer = Arc<Job>;

        fn run(this: Arc<Job>) {
            {
                let mut notes = this.notes.lock();

                notes.overlaps += notes.running;
                notes.running += 1;
                // There is room for it, so nothing is allocated under the lock.
                let _ = notes.order.push_within_capacity(this.number);
            }
            // Another job must not run meanwhile.
            fsleep(Delta::from_millis(2));
            this.notes.lock().running -= 1;
        }
    }

    const JOBS: u32 = 8;

    fn notes() -> Result<Arc<SpinLock<Notes>>> {
        let order = KVec::with_capacity(JOBS as usize, GFP_KERNEL)?;

        Arc::pin_init(
            new_spinlock!(Notes {
                running: 0,
                overlaps: 0,
                order,
            }),
            GFP_KERNEL,
        )
    }

    fn queue_jobs(queue: &OrderedQueue, notes: &Arc<SpinLock<Notes>>) -> Result {
        for number in 0..JOBS {
            let notes = notes.clone();
            let job = Arc::pin_init(
                pin_init!(Job {
                    number,
                    notes,
                    work <- new_work!("Job::work"),
                }),
                GFP_KERNEL,
            )?;

            queue.enqueue(job).map_err(|_| EBUSY)?;
        }
        Ok(())
    }

    /// Returns whether all jobs have run to their ends, one after the other.
    fn all_in_order(notes: &SpinLock<Notes>) -> bool {
        let notes = notes.lock();

        notes.overlaps == 0 && notes.running == 0 && notes.order.iter().copied().eq(0..JOBS)
    }

    #[test]
    fn one_at_a_time_in_order() -> Result {
        let notes = notes()?;
        let queue = OrderedQueue::builder().build(c"kunit-ordered")?;

        queue_jobs(&queue, &notes)?;
        queue.flush();

        assert!(all_in_order(&notes));
        Ok(())
    }

    #[test]
    fn dropping_drains() -> Result {
        let notes = notes()?;
        let queue = OrderedQueue::builder()
            .mem_reclaim()
            .freezable()
            .build(c"kunit-ordered-with-a-name-that-is-longer-than-allowed")?;

        queue_jobs(&queue, &notes)?;
        drop(queue);

        assert!(all_in_order(&notes));
        Ok(())
    }
}
