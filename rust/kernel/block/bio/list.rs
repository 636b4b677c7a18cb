// SPDX-License-Identifier: GPL-2.0

//! A queue of bios that needs no memory of its own.

use super::Bio;
use crate::{
    prelude::*,
    types::{
        Chain,
        Link, //
    }, //
};
use core::ptr::NonNull;

// SAFETY: It is always `bi_next`.
unsafe impl Link for bindings::bio {
    #[inline]
    unsafe fn next(this: NonNull<Self>) -> *mut *mut Self {
        // SAFETY: By the safety requirements.
        unsafe { &raw mut (*this.as_ptr()).bi_next }
    }
}

/// A first-in-first-out list of [`Bio`]s, chained through the bios themselves.
///
/// This is the kernel's C `struct bio_list` with ownership: the owner of the list has to complete
/// its bios. Pushing, popping and appending allocate nothing and take constant time, so bios can
/// be collected under a spinlock and in any context.
///
/// A list that is dropped while bios are left completes them with an I/O error and warns once.
///
/// # Context
///
/// All methods can be called in any context.
///
/// # Invariants
///
/// The list owns each bio of the chain as a [`Bio`] does.
///
/// # Examples
///
/// Bios are collected under a lock and completed without it, in order of arrival:
///
/// ```
/// use kernel::{
///     block::bio::{
///         Bio,
///         BioList, //
///     },
///     prelude::*,
///     sync::SpinLock, //
/// };
///
/// fn submit(waiting: &SpinLock<BioList>, bio: Bio) {
///     waiting.lock().push(bio);
/// }
///
/// fn finish(waiting: &SpinLock<BioList>, result: Result) {
///     let mut finished = core::mem::take(&mut *waiting.lock());
///
///     finished.complete_all(result);
/// }
/// # stack_pin_init!(let waiting = kernel::new_spinlock!(BioList::new()));
/// # finish(&waiting, Ok(()));
/// # let _ = submit;
/// # use pin_init::stack_pin_init;
/// ```
#[doc(alias = "bio_list")]
pub struct BioList(Chain<bindings::bio>);

// SAFETY: The list owns its bios, and a `Bio` is `Send`.
unsafe impl Send for BioList {}

// SAFETY: A shared reference to the list gives no access to its bios.
unsafe impl Sync for BioList {}

impl BioList {
    /// Creates an empty list.
    #[inline]
    pub const fn new() -> Self {
        // INVARIANT: There are no bios.
        Self(Chain::new())
    }

    /// Returns whether the list holds no bio.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many bios the list holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a bio at the end.
    #[doc(alias = "bio_list_add")]
    #[inline]
    pub fn push(&mut self, bio: Bio) {
        // INVARIANT: The list owns the bio from here on.
        // SAFETY: A `Bio` owns its bio, with `bi_next`, and is in no chain.
        unsafe { self.0.push(bio.into_raw()) };
    }

    /// Removes the bio that was added first.
    #[doc(alias = "bio_list_pop")]
    #[inline]
    pub fn pop(&mut self) -> Option<Bio> {
        let bio = self.0.pop()?;

        // SAFETY: By the type invariant, the list owned the bio as a `Bio`; it is no longer in
        // the list.
        Some(unsafe { Bio::from_raw(bio) })
    }

    /// Moves all bios of `other` behind those of this list, in their order.
    ///
    /// Takes constant time, however long the lists are.
    #[doc(alias = "bio_list_merge")]
    #[inline]
    pub fn append(&mut self, other: &mut BioList) {
        self.0.append(&mut other.0);
    }

    /// Completes all bios with the same result, in their order.
    ///
    /// See [`Bio::complete`], also for the context.
    pub fn complete_all(&mut self, result: Result) {
        while let Some(bio) = self.pop() {
            bio.complete(result);
        }
    }

    /// Records an error in all bios, which are then to be completed with [`Ok`].
    ///
    /// For bios that fail in one place and are completed in another, together with others. Takes
    /// linear time.
    pub fn set_error(&mut self, error: Error) {
        let status = error.to_blk_status();

        self.0.for_each(|bio| {
            // SAFETY: By the type invariant, the list owns the bio, which is valid.
            unsafe { (*bio.as_ptr()).bi_status = status };
        });
    }
}

impl Default for BioList {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BioList {
    fn drop(&mut self) {
        if !self.is_empty() {
            crate::pr_warn_once!("a list of bios was dropped unfinished, failing them\n");
            self.complete_all(Err(EIO));
        }
    }
}

#[kunit_tests(rust_bio_list)]
mod tests {
    use super::{
        super::testing::*,
        *, //
    };

    /// Prepares `N` bios.
    fn submitters<const N: usize>(clock: &Clock) -> Result<KVec<KBox<Submitter<'_>>>> {
        let mut all = KVec::with_capacity(N, GFP_KERNEL)?;

        for _ in 0..N {
            all.push(Submitter::new(clock, WRITE)?, GFP_KERNEL)?;
        }
        Ok(all)
    }

    /// Returns whether each bio was completed once, in the order of the submitters, with `status`,
    /// and with no link left.
    fn in_order(submitters: &[KBox<Submitter<'_>>], status: bindings::blk_status_t) -> bool {
        submitters.iter().zip(1..).all(|(submitter, place)| {
            submitter.ended.get() == 1
                && submitter.place.get() == place
                && submitter.status.get() == status
                && !submitter.linked.get()
        })
    }

    #[test]
    fn first_in_first_out() -> Result {
        let clock = Clock::new(0);
        let all = submitters::<3>(&clock)?;
        let mut list = BioList::new();

        assert!(list.is_empty());
        for (submitter, len) in all.iter().zip(1..) {
            list.push(submitter.submit());
            assert_eq!(list.len(), len);
        }
        assert!(!list.is_empty());

        while let Some(bio) = list.pop() {
            bio.complete(Ok(()));
        }

        assert!(in_order(&all, BLK_STS_OK));
        assert!(list.is_empty());
        assert_eq!(list.len(), 0);
        Ok(())
    }

    #[test]
    fn emptied_and_used_again() -> Result {
        let clock = Clock::new(0);
        let all = submitters::<3>(&clock)?;
        let mut list = BioList::default();

        for submitter in &all {
            assert!(list.pop().is_none());
            list.push(submitter.submit());
            list.complete_all(Ok(()));
        }

        assert!(in_order(&all, BLK_STS_OK));
        Ok(())
    }

    #[test]
    fn append_keeps_the_order() -> Result {
        let clock = Clock::new(0);
        let all = submitters::<5>(&clock)?;
        let mut list = BioList::new();
        let mut other = BioList::new();

        // Nothing to nothing.
        list.append(&mut other);
        assert!(list.is_empty() && other.is_empty());

        // Two to nothing.
        other.push(all[0].submit());
        other.push(all[1].submit());
        list.append(&mut other);
        assert!(other.is_empty());
        assert_eq!((list.len(), other.len()), (2, 0));

        // Nothing to two.
        list.append(&mut other);
        assert_eq!((list.len(), other.len()), (2, 0));

        // Two to two, and one behind them.
        other.push(all[2].submit());
        other.push(all[3].submit());
        list.append(&mut other);
        list.push(all[4].submit());
        assert_eq!((list.len(), other.len()), (5, 0));

        list.complete_all(Err(ENOMEM));
        assert!(in_order(&all, BLK_STS_RESOURCE));
        Ok(())
    }

    #[test]
    fn errors_stay_with_their_bios() -> Result {
        let clock = Clock::new(0);
        let all = submitters::<4>(&clock)?;
        let mut good = BioList::new();
        let mut bad = BioList::new();

        good.set_error(EIO);
        good.push(all[0].submit());
        bad.push(all[1].submit());
        bad.push(all[2].submit());
        bad.set_error(ENOMEM);
        good.append(&mut bad);
        good.push(all[3].submit());
        good.complete_all(Ok(()));

        let statuses = [BLK_STS_OK, BLK_STS_RESOURCE, BLK_STS_RESOURCE, BLK_STS_OK];

        for (submitter, status) in all.iter().zip(statuses) {
            assert_eq!(submitter.ended.get(), 1);
            assert_eq!(submitter.status.get(), status);
        }
        Ok(())
    }

    #[test]
    fn dropping_fails_what_is_left() -> Result {
        let clock = Clock::new(0);
        let all = submitters::<2>(&clock)?;
        let mut list = BioList::new();

        for submitter in &all {
            list.push(submitter.submit());
        }
        drop(list);

        assert!(in_order(&all, BLK_STS_IOERR));
        Ok(())
    }
}
