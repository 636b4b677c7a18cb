// SPDX-License-Identifier: GPL-2.0

//! Scopes that restrict what allocations may do.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;

/// Runs `f`, during which allocations of the current task do not start I/O, whatever their flags
/// (`memalloc_noio_save()`, `memalloc_noio_restore()`).
///
/// For code on which I/O may be waiting, and that calls functions that allocate with `GFP_KERNEL`.
/// Scopes nest: an inner one leaves the restriction of the outer one in force.
///
/// # Context
///
/// Can be called in any context. May sleep if `f` does. What `f` hands to another task, such as a
/// work item, is not restricted.
///
/// # Examples
///
/// ```
/// use kernel::alloc::scope::with_noio;
/// # // SAFETY: The current task is valid, and its flags are changed by the task itself only.
/// # let flags = || unsafe { (*kernel::task::Task::current_raw()).flags };
/// # let is_restricted = || flags() & kernel::bindings::PF_MEMALLOC_NOIO != 0;
///
/// let number = with_noio(|| {
///     with_noio(|| assert!(is_restricted()));
///     assert!(is_restricted());
///     KBox::new(42, GFP_KERNEL)
/// })?;
///
/// assert!(!is_restricted());
/// assert_eq!(*number, 42);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("memalloc_noio_save", "memalloc_noio_restore"))]
#[inline]
pub fn with_noio<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: Can be called in any context; changes the flags of the current task only.
    let flags = unsafe { bindings::memalloc_noio_save() };

    let result = f();

    // SAFETY: `flags` is from the call above, which the same task made. The scopes that were
    // entered since then have ended within `f`.
    unsafe { bindings::memalloc_noio_restore(flags) };
    result
}
