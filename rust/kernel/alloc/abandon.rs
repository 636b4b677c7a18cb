// SPDX-License-Identifier: GPL-2.0

//! Memory that is given up because somebody may still write to it.
//!
//! C header: [`include/linux/kmemleak.h`](srctree/include/linux/kmemleak.h)

use crate::prelude::*;
use core::ffi::c_void;

/// Gives up a box for good: its content is not dropped, and its memory is used for nothing else.
///
/// For memory that a device may write to although the driver cannot wait for that. Unlike
/// [`KBox::leak`] it says that this is meant, so that kmemleak does not report it. What the content
/// points to is a leak like any other.
///
/// # Examples
///
/// ```
/// use kernel::alloc::abandon::abandon;
///
/// abandon(KBox::new(42, GFP_KERNEL)?);
/// # Ok::<(), Error>(())
/// ```
pub fn abandon<T>(boxed: KBox<T>) {
    const { assert!(size_of::<T>() != 0, "there is no memory to give up") };

    let memory = KBox::into_raw(boxed);

    // SAFETY: The memory was allocated by `kmalloc()`, and is never freed.
    unsafe { bindings::kmemleak_ignore(memory.cast::<c_void>()) };
}

/// Tells kmemleak that the box may be given up later, in a place where its owner does not have it:
/// it is no leak when nothing refers to it any more.
///
/// # Examples
///
/// ```
/// use kernel::alloc::abandon::may_be_abandoned;
///
/// let request = KBox::new(42, GFP_KERNEL)?;
///
/// may_be_abandoned(&request);
/// # Ok::<(), Error>(())
/// ```
pub fn may_be_abandoned<T>(boxed: &KBox<T>) {
    const { assert!(size_of::<T>() != 0, "there is no memory to give up") };

    let memory = core::ptr::from_ref::<T>(boxed);

    // SAFETY: The memory was allocated by `kmalloc()`.
    unsafe { bindings::kmemleak_not_leak(memory.cast::<c_void>()) };
}
