// SPDX-License-Identifier: GPL-2.0

//! Work queues that are created and owned by Rust code.

use super::Queue;
use crate::{
    alloc::AllocError,
    prelude::*, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};

/// An owned work queue, made by [`Queue::new_ordered`].
///
/// Dropping it waits until all queued work items, and those that they queue in turn, have run, and
/// then destroys it.
///
/// # Context
///
/// Dropping may sleep.
///
/// # Deadlocks
///
/// A work item must never drop the last reference to the queue on which it runs: the queue would
/// wait for the work item and the work item for the queue. So a work item of the queue should not
/// hold a reference-counted pointer to the owner of the queue; an
/// [`EmbeddedWork`](super::EmbeddedWork) holds none.
///
/// # Invariants
///
/// `self.0` is a valid work queue, and only `self` destroys it.
#[doc(alias = "workqueue_struct")]
pub struct OwnedQueue(NonNull<Queue>);

// SAFETY: A work queue may be destroyed by another task than the one that allocated it.
unsafe impl Send for OwnedQueue {}

// SAFETY: A shared reference gives access to the `Queue` only, which is `Sync`.
unsafe impl Sync for OwnedQueue {}

impl Deref for OwnedQueue {
    type Target = Queue;

    #[inline]
    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariant the queue is valid as long as `self` is.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for OwnedQueue {
    #[doc(alias = "destroy_workqueue")]
    fn drop(&mut self) {
        // SAFETY: By the type invariant the queue is valid and only `self` destroys it. Queueing
        // takes a borrow of `self`, so only the queue's own items can still queue items, and
        // destroying waits for them. Delayed items, for which it would not wait, can only be queued
        // on a queue that is never destroyed.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr().cast()) };
    }
}

/// Describes a queue that is to be created.
///
/// It has only the attributes that are valid for an ordered queue.
#[must_use = "the queue is created by `build`"]
pub struct Builder {
    flags: c_uint,
}

// Out of tree, `Queue` is another crate's: this is a trait there.
#[cfg(not(out_of_tree))]
impl Queue {
    /// Begins the description of a queue that runs one work item at a time, in the order in which
    /// they were queued.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     sync::{
    ///         Arc,
    ///         SpinLock, //
    ///     },
    ///     workqueue::Queue, //
    /// };
    ///
    /// let total = Arc::pin_init(kernel::new_spinlock!(1), GFP_KERNEL)?;
    /// let queue = Queue::new_ordered().mem_reclaim().build(c"example")?;
    ///
    /// for summand in [2, 3] {
    ///     let total = total.clone();
    ///
    ///     queue.try_spawn(GFP_KERNEL, move || *total.lock() += summand)?;
    /// }
    /// drop(queue);
    /// assert_eq!(*total.lock(), 6);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// A delayed work item's timer could expire after the queue was destroyed, so this does not
    /// compile:
    ///
    /// ```ignore,compile_fail,E0597
    /// use kernel::workqueue::{
    ///     Queue,
    ///     RawDelayedWorkItem, //
    /// };
    ///
    /// fn later<W: RawDelayedWorkItem<0> + Send + 'static>(item: W) -> Result {
    ///     let queue = Queue::new_ordered().build(c"example")?;
    ///
    ///     let _ = queue.enqueue_delayed(item, 1);
    ///     Ok(())
    /// }
    /// ```
    #[doc(alias = "alloc_ordered_workqueue")]
    #[inline]
    pub const fn new_ordered() -> Builder {
        Builder::ordered()
    }
}

impl Builder {
    #[inline]
    pub(crate) const fn ordered() -> Self {
        Self { flags: 0 }
    }

    /// Guarantees progress under memory pressure.
    ///
    /// For a queue on which freeing memory may depend, such as one that finishes write-back. Its
    /// work items must then not wait for memory themselves.
    #[doc(alias = "WQ_MEM_RECLAIM")]
    #[inline]
    pub const fn mem_reclaim(mut self) -> Self {
        self.flags |= bindings::wq_flags_WQ_MEM_RECLAIM;
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
    #[doc(alias = "alloc_ordered_workqueue")]
    pub fn build(self, name: &CStr) -> Result<OwnedQueue, AllocError> {
        // SAFETY: `name` is a valid C string. `self.flags` only holds flags that an ordered queue
        // may have.
        let queue = unsafe { bindings::alloc_ordered_workqueue(name.as_char_ptr(), self.flags) };

        // INVARIANT: The queue was just allocated, and this is its only owner. A `Queue` is a
        // transparent wrapper of the C type.
        Ok(OwnedQueue(NonNull::new(queue.cast()).ok_or(AllocError)?))
    }
}

#[kunit_tests(rust_owned_queue)]
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

    fn queue_jobs(queue: &Queue, notes: &Arc<SpinLock<Notes>>) -> Result {
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
    fn dropping_waits_for_all_in_order() -> Result {
        let notes = notes()?;
        let queue = Queue::new_ordered()
            .mem_reclaim()
            .build(c"kunit-ordered-with-a-name-that-is-longer-than-allowed")?;

        queue_jobs(&queue, &notes)?;
        drop(queue);

        assert!(all_in_order(&notes));
        Ok(())
    }
}
