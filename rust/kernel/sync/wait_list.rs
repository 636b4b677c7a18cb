// SPDX-License-Identifier: GPL-2.0

//! Lists of sleeping callers.
//!
//! A [`WaitList`] collects callers that wait for the same event, each with its own answer. It
//! allocates no memory: each caller has its node on its own stack and sleeps until the node was
//! completed.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::{
    prelude::*,
    types::{
        Brand,
        Chain,
        Link,
        Opaque, //
    }, //
};
use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use pin_init::stack_pin_init;

/// A caller that sleeps, or is about to; on the caller's stack.
#[pin_data]
struct Node {
    /// The next node of the list. It belongs to the owner of the list.
    next: Cell<*mut Node>,
    /// The caller's answer, written before the node is completed.
    result: UnsafeCell<Result>,
    #[pin]
    done: Opaque<bindings::completion>,
}

// SAFETY: It is always `next`.
unsafe impl Link for Node {
    #[inline]
    unsafe fn next(this: NonNull<Self>) -> *mut *mut Self {
        // SAFETY: By the safety requirements.
        unsafe { (*this.as_ptr()).next.as_ptr() }
    }
}

/// The permission to put one caller on one list.
///
/// [`WaitList::wait`] makes it, [`WaitList::push`] takes it. It cannot leave its closure, nor the
/// task.
#[must_use = "a caller that is on no list is not woken up"]
pub struct Waiter<'w> {
    node: NonNull<Node>,
    joined: &'w Cell<bool>,
    _brand: Brand<'w>,
}

/// The proof that a caller is on a list.
#[must_use = "`WaitList::wait` needs the proof"]
pub struct Joined<'w>(Brand<'w>);

/// A first-in-first-out list of sleeping callers.
///
/// The list is plain data, to be kept under a lock. It can be moved, taken and appended to another
/// list in constant time. Callers join it by [`WaitList::wait`] and sleep until
/// [`WaitList::complete_all`] gives them their result.
///
/// A list that is dropped while callers are on it wakes all of them with [`EIO`] and warns once. (A
/// list that is leaked, for instance by [`core::mem::forget`], leaves its callers asleep. Their
/// nodes stay valid.)
///
/// # Invariants
///
/// Each node is valid, because its caller does not return before the node was completed, and no
/// node on the list was completed. Only the owner of the list may use the `next` and the `result`
/// of its nodes.
///
/// # Examples
///
/// ```
/// use kernel::{
///     prelude::*,
///     sync::{
///         SpinLock,
///         WaitList, //
///     }, //
/// };
///
/// struct Flusher {
///     dead: bool,
///     waiting: WaitList,
/// }
///
/// /// Sleeps until `answer` is called.
/// fn flush(flusher: &SpinLock<Flusher>) -> Result {
///     WaitList::wait(|waiter| {
///         let mut flusher = flusher.lock();
///
///         if flusher.dead {
///             return Err(EIO);
///         }
///         let joined = flusher.waiting.push(waiter);
///         // The request that leads to `answer` can be sent here, under the same lock.
///         Ok(joined)
///     })
/// }
///
/// /// Wakes up all callers, without the lock, which they may take next.
/// fn answer(flusher: &SpinLock<Flusher>, result: Result) {
///     let mut waiting = core::mem::take(&mut flusher.lock().waiting);
///
///     waiting.complete_all(result);
/// }
/// # use pin_init::stack_pin_init;
/// # stack_pin_init!(let flusher = kernel::new_spinlock!(Flusher {
/// #     dead: true,
/// #     waiting: WaitList::new(),
/// # }));
/// # answer(&flusher, Ok(()));
/// # assert_eq!(flush(&flusher), Err(EIO));
/// ```
pub struct WaitList(Chain<Node>);

// SAFETY: A node may be completed by any task, and a result can be sent to another task.
unsafe impl Send for WaitList {}

// SAFETY: A shared reference to the list gives no access to its nodes.
unsafe impl Sync for WaitList {}

impl WaitList {
    /// Creates an empty list.
    #[inline]
    pub const fn new() -> Self {
        // INVARIANT: There are no nodes.
        Self(Chain::new())
    }

    /// Returns whether no caller is on the list.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many callers are on the list.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Joins a list and sleeps until it was completed.
    ///
    /// `join` gets a [`Waiter`] for the caller, and puts it on a list, normally with the lock held
    /// that protects the list. When it has returned, and thereby released that lock, the caller
    /// goes to sleep. The sleep is uninterruptible and has no limit, so the hung task detector may
    /// report a caller that is not answered.
    ///
    /// # Errors
    ///
    /// - The error that the list was completed with.
    /// - The error that `join` returns. The caller then returns at once, unless `join` has put it
    ///   on a list: then it sleeps all the same, and the result of the list is lost.
    ///
    /// # Context
    ///
    /// May sleep. The caller must not hold a spinlock.
    ///
    /// # Examples
    ///
    /// A closure that has not joined has no proof to return, so this does not compile:
    ///
    /// ```ignore,compile_fail,E0308
    /// # use kernel::{prelude::*, sync::WaitList};
    /// let _ = WaitList::wait(|waiter| Ok(()));
    /// ```
    ///
    /// Nor can the permission to join be kept for later:
    ///
    /// ```ignore,compile_fail,E0521
    /// # use kernel::{prelude::*, sync::WaitList};
    /// let mut kept = None;
    /// let _ = WaitList::wait(|waiter| {
    ///     kept = Some(waiter);
    ///     Err(EAGAIN)
    /// });
    /// ```
    #[doc(alias = "wait_for_completion")]
    pub fn wait<F>(join: F) -> Result
    where
        F: for<'w> FnOnce(Waiter<'w>) -> Result<Joined<'w>>,
    {
        stack_pin_init!(let node = pin_init!(Node {
            next: Cell::new(ptr::null_mut()),
            result: UnsafeCell::new(Err(EIO)),
            done <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writing.
                unsafe { bindings::init_completion(slot) }
            }),
        }));
        let node = node.into_ref();
        let joined = Cell::new(false);

        let proof = join(Waiter {
            node: NonNull::from(node.get_ref()),
            joined: &joined,
            _brand: PhantomData,
        });

        // The node must stay while it is on a list, whatever the closure returns.
        if joined.get() {
            // SAFETY: `done` was initialised above.
            unsafe { bindings::wait_for_completion(node.done.get()) };
        }

        let Joined(_) = proof?;

        // SAFETY: By the proof, the node was put on a list. It was completed, so it is on no list
        // any more. The result was written before, and the node is not used by another task again.
        unsafe { *node.result.get() }
    }

    /// Puts a caller at the end of the list.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn push<'w>(&mut self, waiter: Waiter<'w>) -> Joined<'w> {
        let node = waiter.node;

        // From here on, `WaitList::wait` does not return before the node was completed.
        waiter.joined.set(true);

        // SAFETY: The node is on no list, because this is the only `Waiter` for it. It stays valid
        // until it was completed, and then it is on no list.
        unsafe { self.0.push(node) };

        Joined(PhantomData)
    }

    /// Moves all callers of `other` behind those of this list, in their order.
    ///
    /// Takes constant time, however long the lists are.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn append(&mut self, other: &mut WaitList) {
        self.0.append(&mut other.0);
    }

    /// Wakes up all callers with the same result, in the order in which they joined.
    ///
    /// # Context
    ///
    /// Any context, also under a lock; but the callers may take the lock next.
    #[doc(alias = "complete")]
    pub fn complete_all(&mut self, result: Result) {
        while let Some(node) = self.0.pop() {
            let node = node.as_ptr();

            // SAFETY: By the type invariant, the node was on the list, so it is valid and its
            // `result` is the list's.
            let done = unsafe {
                *(*node).result.get() = result;
                (*node).done.get()
            };

            // SAFETY: The completion is valid until it was completed. After that the node may be
            // gone, so it is not used any more.
            unsafe { bindings::complete(done) };
        }
    }
}

impl Default for WaitList {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for WaitList {
    fn drop(&mut self) {
        if !self.is_empty() {
            crate::pr_warn_once!("a list of sleeping callers was dropped, failing them\n");
            self.complete_all(Err(EIO));
        }
    }
}

#[kunit_tests(rust_wait_list)]
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
        workqueue, //
    };

    /// Two lists, and the results of their callers.
    struct Lists {
        first: WaitList,
        second: WaitList,
        results: KVec<Result>,
    }

    #[pin_data]
    struct Test {
        #[pin]
        lists: SpinLock<Lists>,
    }

    impl Test {
        fn new() -> Result<Arc<Self>> {
            let results = KVec::with_capacity(8, GFP_KERNEL)?;

            Arc::pin_init(
                pin_init!(Self {
                    lists <- new_spinlock!(Lists {
                        first: WaitList::new(),
                        second: WaitList::new(),
                        results,
                    }),
                }),
                GFP_KERNEL,
            )
        }

        /// Lets another task join one of the lists, and record its result.
        fn spawn(self: &Arc<Self>, list: fn(&mut Lists) -> &mut WaitList) -> Result {
            let this = self.clone();

            workqueue::system_long().try_spawn(GFP_KERNEL, move || {
                let result = WaitList::wait(|waiter| Ok(list(&mut this.lists.lock()).push(waiter)));

                // There is room for it, so nothing is allocated under the lock.
                let _ = this.lists.lock().results.push_within_capacity(result);
            })?;
            Ok(())
        }

        /// Waits for up to a few seconds.
        fn until(&self, reached: impl Fn(&Lists) -> bool) -> bool {
            for _ in 0..5000 {
                if reached(&self.lists.lock()) {
                    return true;
                }
                fsleep(Delta::from_millis(1));
            }
            false
        }

        /// Completes the first list in another task, which cannot do so before `lists` is
        /// unlocked.
        fn complete_later(self: &Arc<Self>, result: Result) -> Result {
            let this = self.clone();

            workqueue::system_long().try_spawn(GFP_KERNEL, move || {
                this.until(|lists| !lists.first.is_empty());
                core::mem::take(&mut this.lists.lock().first).complete_all(result);
            })?;
            Ok(())
        }
    }

    #[test]
    fn gets_the_result() -> Result {
        let test = Test::new()?;

        for result in [Ok(()), Err(ENOMEM), Err(EIO), Ok(())] {
            test.complete_later(result)?;

            let got = WaitList::wait(|waiter| Ok(test.lists.lock().first.push(waiter)));

            assert_eq!(got, result);
            assert!(test.lists.lock().first.is_empty());
        }
        Ok(())
    }

    #[test]
    fn completed_before_asleep() {
        let mut list = WaitList::new();

        let got = WaitList::wait(|waiter| {
            let joined = list.push(waiter);

            assert_eq!(list.len(), 1);
            list.complete_all(Ok(()));
            assert_eq!(list.len(), 0);
            Ok(joined)
        });

        assert_eq!(got, Ok(()));
    }

    #[test]
    fn not_joined() {
        assert_eq!(WaitList::wait(|_| Err(EAGAIN)), Err(EAGAIN));
    }

    #[test]
    fn joined_but_denied() -> Result {
        let test = Test::new()?;

        test.complete_later(Ok(()))?;

        let got = WaitList::wait(|waiter| {
            let _ = test.lists.lock().first.push(waiter);
            Err(EAGAIN)
        });

        assert_eq!(got, Err(EAGAIN));
        // Had the caller not slept until it was completed, it would still be on the list.
        assert!(test.lists.lock().first.is_empty());
        Ok(())
    }

    #[test]
    fn all_are_woken() -> Result {
        let test = Test::new()?;

        for _ in 0..2 {
            test.spawn(|lists| &mut lists.first)?;
            test.spawn(|lists| &mut lists.second)?;
        }
        assert!(test.until(|lists| lists.first.len() == 2 && lists.second.len() == 2));

        let mut all = {
            let mut lists = test.lists.lock();
            let mut all = core::mem::take(&mut lists.first);

            all.append(&mut lists.second);
            assert!(lists.first.is_empty() && lists.second.is_empty());
            all
        };
        assert_eq!(all.len(), 4);
        assert!(test.lists.lock().results.is_empty());

        all.complete_all(Err(ENOMEM));
        assert!(all.is_empty());
        assert!(test.until(|lists| lists.results.len() == 4));
        assert!(test
            .lists
            .lock()
            .results
            .iter()
            .all(|result| *result == Err(ENOMEM)));
        Ok(())
    }

    #[test]
    fn dropping_wakes_with_an_error() -> Result {
        let test = Test::new()?;

        test.spawn(|lists| &mut lists.first)?;
        test.spawn(|lists| &mut lists.first)?;
        assert!(test.until(|lists| lists.first.len() == 2));

        drop(core::mem::take(&mut test.lists.lock().first));
        assert!(test.until(|lists| lists.results.len() == 2));
        assert!(test
            .lists
            .lock()
            .results
            .iter()
            .all(|result| *result == Err(EIO)));
        Ok(())
    }
}
