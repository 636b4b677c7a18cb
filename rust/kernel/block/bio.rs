// SPDX-License-Identifier: GPL-2.0

//! Owned bios for drivers and subsystems that complete them.
//!
//! A driver that takes a `struct bio` has to complete it exactly once. [`Bio`] is that obligation
//! as a type: it can be moved, kept in a [`BioList`] and completed, but not copied, and dropping it
//! warns.
//!
//! # Context
//!
//! Completing runs the submitter's `bi_end_io`. It may be called in any context, and does not
//! sleep. But some handlers take long (they copy, checksum, or submit the next bio), so a driver
//! that gets answers in an interrupt handler had better complete its bios in a work item. No
//! spinlock may be held that such a handler may take, in particular none that the driver takes when
//! a bio is submitted to it.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::prelude::*;
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

mod list;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing;

pub use list::BioList;

/// A bio that its holder has to complete.
///
/// Wraps the kernel's C `struct bio`. [`Bio::complete`] ends it with a result. A `Bio` that is
/// dropped instead is completed with an I/O error, because its submitter would sleep for ever, and
/// a warning is printed once.
///
/// # Context
///
/// All methods can be called in any context.
///
/// # Invariants
///
/// - `self.0` points at a valid, initialised `struct bio` that has not been completed.
/// - Only the owner of the `Bio` completes it, or uses its `bi_next` before that.
///
/// # Examples
///
/// ```
/// use kernel::{
///     block::bio::Bio,
///     prelude::*, //
/// };
///
/// /// Completes a write that had to be durable with the result of the flush.
/// fn answer(bio: Bio, flushed: Result) {
///     if bio.is_fua() && flushed.is_err() {
///         pr_debug!("write of {} bytes at {} is lost\n", bio.size(), bio.sector());
///     }
///     bio.complete(flushed);
/// }
/// ```
#[doc(alias = "bio")]
pub struct Bio(NonNull<bindings::bio>);

// SAFETY: A bio may be completed by any task and on any CPU.
unsafe impl Send for Bio {}

// SAFETY: What can be done through a shared reference only reads fields that do not change before
// the bio is completed.
unsafe impl Sync for Bio {}

impl Bio {
    /// Takes over a bio.
    ///
    /// For the abstraction of a subsystem, from which Rust drivers get their bios.
    ///
    /// # Context
    ///
    /// Any context.
    ///
    /// # Safety
    ///
    /// - `bio` must point at a valid `struct bio` that was submitted, or initialised by its owner,
    ///   and has not been completed.
    /// - The caller gives up the bio: only through the returned [`Bio`] may it be completed or
    ///   written to, or its `bi_next` be used, until that was completed or given away by
    ///   [`Bio::into_raw`].
    #[inline]
    pub unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the safety requirements of this function.
        Self(bio)
    }

    /// Gives the bio away without completing it.
    ///
    /// The bio has still to be completed; [`Bio::from_raw`] makes the pointer a [`Bio`] again.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn into_raw(self) -> NonNull<bindings::bio> {
        ManuallyDrop::new(self).0
    }

    /// Returns the bio's first sector on its device, in units of 512 bytes.
    #[inline]
    pub fn sector(&self) -> u64 {
        // SAFETY: By the type invariant, `self.0` is valid for reading.
        unsafe { (*self.0.as_ptr()).bi_iter.bi_sector }
    }

    /// Returns how many bytes the bio covers.
    ///
    /// A bio can cover bytes and still carry no data, see [`Bio::has_data`].
    #[inline]
    pub fn size(&self) -> usize {
        // SAFETY: By the type invariant, `self.0` is valid for reading.
        let size = unsafe { (*self.0.as_ptr()).bi_iter.bi_size };

        size as usize
    }

    /// Returns whether the bio carries data, as reads and writes do.
    ///
    /// A pure flush, a discard and a write of zeroes carry none.
    #[doc(alias = "bio_has_data")]
    #[inline]
    pub fn has_data(&self) -> bool {
        // SAFETY: By the type invariant, `self.0` is a valid bio.
        unsafe { bindings::bio_has_data(self.0.as_ptr()) }
    }

    /// Returns whether the bio's own data must be durable before the bio is completed
    /// (`REQ_FUA`).
    #[doc(alias = "REQ_FUA")]
    #[inline]
    pub fn is_fua(&self) -> bool {
        self.has_flag(bindings::req_flag_bits___REQ_FUA)
    }

    /// Returns whether everything that was completed before must be durable before the bio is
    /// executed (`REQ_PREFLUSH`).
    #[doc(alias = "REQ_PREFLUSH")]
    #[inline]
    pub fn is_preflush(&self) -> bool {
        self.has_flag(bindings::req_flag_bits___REQ_PREFLUSH)
    }

    /// Returns whether the given bit of `bi_opf` is set.
    #[inline]
    fn has_flag(&self, bit: bindings::req_flag_bits) -> bool {
        // SAFETY: By the type invariant, `self.0` is valid for reading.
        let opf = unsafe { (*self.0.as_ptr()).bi_opf };

        opf & (1 << bit) != 0
    }

    /// Completes the bio.
    ///
    /// An [`Err`] becomes the block status that `errno_to_blk_status()` has for it, for instance
    /// `BLK_STS_RESOURCE` for [`ENOMEM`] and `BLK_STS_IOERR` for [`EIO`]. [`Ok`] leaves the
    /// bio's status as it is, so an error that was recorded earlier is not lost.
    ///
    /// # Context
    ///
    /// Any context. See the [module's documentation](self#context) for what the submitter's
    /// handler may do.
    #[doc(alias = "bio_endio")]
    #[inline]
    pub fn complete(self, result: Result) {
        ManuallyDrop::new(self).end(result);
    }

    /// Ends the bio; the caller must not use `self` any more.
    fn end(&mut self, result: Result) {
        let bio = self.0.as_ptr();

        // SAFETY: By the type invariant, `bio` is valid and only we may write to it.
        unsafe {
            // Lists of bios use `bi_next`; the submitter must not find a link in it.
            (*bio).bi_next = core::ptr::null_mut();
            if let Err(error) = result {
                (*bio).bi_status = error.to_blk_status();
            }
        }

        // SAFETY: By the type invariant, the bio was not completed yet, and only its owner
        // completes it. Both callers own the `Bio` and do not use it afterwards.
        unsafe { bindings::bio_endio(bio) };
    }
}

impl Drop for Bio {
    fn drop(&mut self) {
        crate::pr_warn_once!("a bio was dropped unfinished, completing it with an I/O error\n");
        self.end(Err(EIO));
    }
}

#[kunit_tests(rust_bio)]
mod tests {
    use super::{
        testing::*,
        *, //
    };

    #[test]
    fn completed_once() -> Result {
        let clock = Clock::new(0);
        let submitter = Submitter::new(&clock, WRITE)?;

        submitter.submit().complete(Ok(()));

        assert_eq!(submitter.ended.get(), 1);
        assert_eq!(submitter.status.get(), BLK_STS_OK);
        Ok(())
    }

    #[test]
    fn errors_become_block_statuses() -> Result {
        let clock = Clock::new(0);

        for (error, status) in [
            (EIO, BLK_STS_IOERR),
            (ENOMEM, BLK_STS_RESOURCE),
            // An errno without a block status is an I/O error.
            (EFAULT, BLK_STS_IOERR),
        ] {
            let submitter = Submitter::new(&clock, WRITE)?;

            submitter.submit().complete(Err(error));

            assert_eq!(submitter.ended.get(), 1);
            assert_eq!(submitter.status.get(), status);
        }
        Ok(())
    }

    #[test]
    fn success_keeps_an_earlier_error() -> Result {
        let clock = Clock::new(0);
        let submitter = Submitter::new(&clock, WRITE)?;
        let bio = submitter.submit();

        // SAFETY: The bio is valid, and we own it.
        unsafe { (*submitter.as_raw().as_ptr()).bi_status = BLK_STS_RESOURCE };
        bio.complete(Ok(()));

        assert_eq!(submitter.status.get(), BLK_STS_RESOURCE);
        Ok(())
    }

    #[test]
    fn dropping_fails_once() -> Result {
        let clock = Clock::new(0);
        let submitter = Submitter::new(&clock, WRITE)?;

        drop(submitter.submit());

        assert_eq!(submitter.ended.get(), 1);
        assert_eq!(submitter.status.get(), BLK_STS_IOERR);
        Ok(())
    }

    #[test]
    fn given_away_is_not_completed() -> Result {
        let clock = Clock::new(0);
        let submitter = Submitter::new(&clock, WRITE)?;

        let bio = submitter.submit().into_raw();
        assert_eq!(submitter.ended.get(), 0);

        // SAFETY: We just got the bio.
        unsafe { Bio::from_raw(bio) }.complete(Ok(()));
        assert_eq!(submitter.ended.get(), 1);
        Ok(())
    }

    #[test]
    fn links_do_not_leak() -> Result {
        let clock = Clock::new(0);
        let submitter = Submitter::new(&clock, WRITE)?;
        let bio = submitter.submit();

        // SAFETY: The bio is valid, and we own it.
        unsafe { (*submitter.as_raw().as_ptr()).bi_next = submitter.as_raw().as_ptr() };
        bio.complete(Ok(()));

        assert!(!submitter.linked.get());
        Ok(())
    }

    #[test]
    fn accessors() -> Result {
        let clock = Clock::new(0);
        let submitter = Submitter::new(&clock, WRITE | FUA)?;

        // SAFETY: The bio is valid, and not submitted yet.
        unsafe {
            let bio = submitter.as_raw().as_ptr();

            (*bio).bi_iter.bi_sector = 42;
            (*bio).bi_iter.bi_size = 4096;
        }
        let bio = submitter.submit();

        assert_eq!(bio.sector(), 42);
        assert_eq!(bio.size(), 4096);
        assert!(bio.has_data());
        assert!(bio.is_fua());
        assert!(!bio.is_preflush());
        bio.complete(Ok(()));

        let submitter = Submitter::new(&clock, WRITE | PREFLUSH)?;
        let bio = submitter.submit();

        assert!(!bio.has_data());
        assert!(!bio.is_fua());
        assert!(bio.is_preflush());
        bio.complete(Ok(()));
        Ok(())
    }
}
