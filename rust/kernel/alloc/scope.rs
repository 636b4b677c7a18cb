// SPDX-License-Identifier: GPL-2.0

//! Scopes that restrict what allocations may do.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::{
    bindings,
    types::NotThreadSafe, //
};

/// Keeps allocations of the current task from starting I/O, whatever their flags, until it is
/// dropped (`memalloc_noio_save()`).
///
/// For code on which I/O may be waiting, and that calls functions that allocate with `GFP_KERNEL`.
/// Scopes nest, and must be dropped in reverse order; one that is leaked stays in force. Process
/// context.
///
/// # Examples
///
/// ```
/// use kernel::alloc::scope::NoIo;
///
/// let noio = NoIo::new();
/// let number = KBox::new(42, GFP_KERNEL)?;
///
/// drop(noio);
/// assert_eq!(*number, 42);
/// # Ok::<(), Error>(())
/// ```
#[must_use = "the scope ends when it is dropped"]
pub struct NoIo {
    flags: crate::ffi::c_uint,
    _not_send: NotThreadSafe,
}

impl NoIo {
    /// Enters the scope.
    pub fn new() -> Self {
        Self {
            // SAFETY: Can be called any time; changes flags of the current task only.
            flags: unsafe { bindings::memalloc_noio_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Default for NoIo {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: `flags` is from `memalloc_noio_save()`, called by the same task since the type is
        // not `Send`. If an outer scope is dropped first, the restriction ends with it.
        unsafe { bindings::memalloc_noio_restore(self.flags) };
    }
}
