// SPDX-License-Identifier: GPL-2.0

//! Chains of entries that hold the links themselves.

use core::{
    mem,
    ptr::{
        self,
        NonNull, //
    }, //
};

/// An entry of a [`Chain`].
///
/// # Safety
///
/// [`next`](Self::next) returns a pointer to a field of the entry, always to the same one.
pub(crate) unsafe trait Link {
    /// Returns the place of the link to the next entry.
    ///
    /// # Safety
    ///
    /// `this` is valid.
    unsafe fn next(this: NonNull<Self>) -> *mut *mut Self;
}

/// A first-in-first-out chain, which needs no memory of its own.
///
/// It lends structure to a type that owns the entries. All operations but
/// [`for_each`](Self::for_each) take constant time.
///
/// # Context
///
/// All methods can be called in any context.
///
/// # Invariants
///
/// - The entries from the first to the last one of `ends` are valid and linked; the last one has no
///   next. There are `len` of them.
/// - Only the chain uses their links.
pub(crate) struct Chain<T: Link> {
    ends: Option<(NonNull<T>, NonNull<T>)>,
    len: usize,
}

impl<T: Link> Chain<T> {
    #[inline]
    pub(crate) const fn new() -> Self {
        // INVARIANT: There are no entries.
        Self { ends: None, len: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry at the end.
    ///
    /// # Safety
    ///
    /// The entry is in no chain, and stays valid while it is in this one. Nothing else uses its
    /// link meanwhile.
    #[inline]
    pub(crate) unsafe fn push(&mut self, entry: NonNull<T>) {
        // SAFETY: By the safety requirements.
        unsafe { T::next(entry).write(ptr::null_mut()) };
        // INVARIANT: The entry is valid, and has no next.
        self.link((entry, entry), 1);
    }

    /// Removes the entry that was added first.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<NonNull<T>> {
        let (head, tail) = self.ends?;
        // SAFETY: By the type invariant.
        let next = unsafe { T::next(head).read() };

        // INVARIANT: The last one stays unless it was the first, too; then the chain is empty.
        self.ends = NonNull::new(next).map(|next| (next, tail));
        self.len -= 1;
        Some(head)
    }

    /// Moves all entries of `other` behind those of this chain, in their order.
    #[inline]
    pub(crate) fn append(&mut self, other: &mut Self) {
        if let Some(ends) = other.ends.take() {
            // INVARIANT: `other` is empty now, so its entries are in this chain only.
            self.link(ends, mem::take(&mut other.len));
        }
    }

    /// Calls `f` with each entry, from the first one to the last one.
    pub(crate) fn for_each(&self, mut f: impl FnMut(NonNull<T>)) {
        let mut next = self.ends.map(|(head, _)| head);

        while let Some(entry) = next {
            f(entry);
            // SAFETY: By the type invariant.
            next = NonNull::new(unsafe { T::next(entry).read() });
        }
    }

    /// Links `len` entries, from a first one to a last one, behind the last entry.
    #[inline]
    fn link(&mut self, (first, last): (NonNull<T>, NonNull<T>), len: usize) {
        self.ends = Some(match self.ends {
            None => (first, last),
            Some((head, tail)) => {
                // SAFETY: By the type invariant.
                unsafe { T::next(tail).write(first.as_ptr()) };
                (head, last)
            }
        });
        self.len += len;
    }
}
