// SPDX-License-Identifier: GPL-2.0

//! Lifetimes that mark a value.

use core::marker::PhantomData;

/// Makes a lifetime invariant, so that no other lifetime can take its place.
///
/// A function that is generic over the lifetime of such a value can then tie its result to this
/// value, and to no other.
pub(crate) type Brand<'a> = PhantomData<fn(&'a ()) -> &'a ()>;
