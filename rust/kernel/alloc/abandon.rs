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
