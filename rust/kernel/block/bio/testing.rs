// SPDX-License-Identifier: GPL-2.0

//! Bios for tests, which record how they were completed.

use super::Bio;
use crate::{
    prelude::*,
    types::Opaque, //
};
use core::{
    cell::Cell,
    ptr::NonNull, //
};

/// `BLK_STS_OK`; bindgen evaluates neither this nor the following.
pub(crate) const BLK_STS_OK: bindings::blk_status_t = 0;
/// `BLK_STS_RESOURCE`.
pub(crate) const BLK_STS_RESOURCE: bindings::blk_status_t = 9;
/// `BLK_STS_IOERR`.
pub(crate) const BLK_STS_IOERR: bindings::blk_status_t = 10;

/// The `bi_opf` of a write.
pub(crate) const WRITE: bindings::blk_opf_t = bindings::req_op_REQ_OP_WRITE;
/// `REQ_FUA`.
pub(crate) const FUA: bindings::blk_opf_t = 1 << bindings::req_flag_bits___REQ_FUA;
/// `REQ_PREFLUSH`.
pub(crate) const PREFLUSH: bindings::blk_opf_t = 1 << bindings::req_flag_bits___REQ_PREFLUSH;

/// Counts completions, for their order.
pub(crate) type Clock = Cell<u32>;

/// The submitter of one bio. It is only used by the test's own task.
#[repr(C)]
pub(crate) struct Submitter<'a> {
    bio: Opaque<bindings::bio>,
    clock: &'a Clock,
    /// How often the bio was completed.
    pub(crate) ended: Cell<u32>,
    /// Its status when it was completed.
    pub(crate) status: Cell<bindings::blk_status_t>,
    /// Its place among the completions on the clock, the first being one.
    pub(crate) place: Cell<u32>,
    /// Whether the bio was still linked to another one.
    pub(crate) linked: Cell<bool>,
}

impl<'a> Submitter<'a> {
    /// Prepares a bio with the given `bi_opf`.
    pub(crate) fn new(clock: &'a Clock, opf: bindings::blk_opf_t) -> Result<KBox<Self>> {
        let this = KBox::new(
            Self {
                bio: Opaque::zeroed(),
                clock,
                ended: Cell::new(0),
                status: Cell::new(BLK_STS_OK),
                place: Cell::new(0),
                linked: Cell::new(false),
            },
            GFP_KERNEL,
        )?;

        // SAFETY: The bio is valid for writing. It needs neither a device nor a table, because its
        // data is not accessed.
        unsafe {
            bindings::bio_init(
                this.bio.get(),
                core::ptr::null_mut(),
                core::ptr::null_mut(),
                0,
                opf,
            );
            (*this.bio.get()).bi_end_io = Some(end_io);
        }

        Ok(this)
    }

    /// Returns the C bio.
    pub(crate) fn as_raw(&self) -> NonNull<bindings::bio> {
        NonNull::from(&self.bio).cast()
    }

    /// Submits the bio. To be called once; the bio has to be completed before `self` is dropped.
    pub(crate) fn submit(&self) -> Bio {
        // SAFETY: The bio is initialised and the tests give it away only once.
        unsafe { Bio::from_raw(self.as_raw()) }
    }
}

/// Records the completion of a [`Submitter`]'s bio.
///
/// # Safety
///
/// `bio` must be the bio of a `Submitter` that stays valid during the call.
unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
    // SAFETY: By the safety requirements of this function; the bio is the first field.
    let this = unsafe { &*bio.cast::<Submitter<'_>>() };

    this.clock.set(this.clock.get() + 1);
    this.place.set(this.clock.get());
    this.ended.set(this.ended.get() + 1);
    // SAFETY: The bio is valid; it is being completed.
    unsafe {
        this.status.set((*bio).bi_status);
        this.linked.set(!(*bio).bi_next.is_null());
    }
}
