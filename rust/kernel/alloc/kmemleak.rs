// SPDX-License-Identifier: GPL-2.0

//! Memory that is leaked on purpose, because a device may still write to it.
//!
//! C header: [`include/linux/kmemleak.h`](srctree/include/linux/kmemleak.h)

use crate::prelude::*;
use core::ffi::c_void;

/// Leaks a box: its content is not dropped, and its memory is never used again.
///
/// For memory that a device may write to although the driver cannot wait for that. Unlike
/// [`KBox::leak`] it marks the leak as intended, so that kmemleak does not report it
/// (`kmemleak_ignore()`). kmemleak still reports memory that only the content points to.
///
/// # Context
///
/// Any context.
///
/// # Examples
///
/// ```
/// use kernel::alloc::kmemleak;
///
/// kmemleak::leak(KBox::new(42, GFP_KERNEL)?);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "kmemleak_ignore")]
pub fn leak<T>(boxed: KBox<T>) {
    const { assert!(size_of::<T>() != 0, "there is no memory to leak") };

    let memory = KBox::into_raw(boxed);

    // SAFETY: The memory was allocated by `kmalloc()`, and is never freed.
    unsafe { bindings::kmemleak_ignore(memory.cast::<c_void>()) };
}

/// Keeps kmemleak from reporting the box when nothing refers to it any more
/// (`kmemleak_not_leak()`).
///
/// For a box that may be leaked later, when its owner has no access to it.
///
/// # Context
///
/// Any context.
///
/// # Examples
///
/// ```
/// use kernel::alloc::kmemleak;
///
/// let request = KBox::new(42, GFP_KERNEL)?;
///
/// kmemleak::not_leak(&request);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "kmemleak_not_leak")]
pub fn not_leak<T>(boxed: &KBox<T>) {
    const { assert!(size_of::<T>() != 0, "there is no memory to leak") };

    let memory = core::ptr::from_ref::<T>(boxed);

    // SAFETY: The memory was allocated by `kmalloc()`.
    unsafe { bindings::kmemleak_not_leak(memory.cast::<c_void>()) };
}
