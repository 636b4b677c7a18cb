// SPDX-License-Identifier: GPL-2.0

//! Buffers that a driver lends to the device.

use crate::{
    bindings,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    }, //
};
use core::{
    ffi::c_void,
    ptr::NonNull, //
};

/// Memory that can be made available to the device on a [`Virtqueue`](super::Virtqueue).
///
/// A buffer is an owner. Adding it moves it into the queue, so that the driver cannot read, write
/// or free the memory while the device uses it; the queue returns it when the device has used it or
/// when the queue is closed. [`Command`] is an implementation that suits most drivers.
///
/// # Safety
///
/// - `into_raw` returns a pointer that stays valid until it is given to `from_raw`.
/// - The memory behind `readable` and `writable` belongs to the buffer alone, stays where it is
///   while the buffer is raw, and lies in the kernel's linear mapping (no `vmalloc`, no stack).
/// - `readable` and `writable` do not overlap, not even in a cache line if DMA is not coherent, and
///   one of them is not empty.
/// - Any byte that the device writes to `writable` is valid for what is stored there.
pub unsafe trait Buffer: Sized + Send + 'static {
    /// Turns the owner into a pointer, the queue's token.
    fn into_raw(self) -> NonNull<c_void>;

    /// Turns the pointer back into the owner.
    ///
    /// # Safety
    ///
    /// `raw` was returned by [`into_raw`](Self::into_raw) and not taken back since.
    unsafe fn from_raw(raw: NonNull<c_void>) -> Self;

    /// Returns the bytes that the device reads.
    ///
    /// # Safety
    ///
    /// `raw` was returned by [`into_raw`](Self::into_raw) and not taken back since.
    unsafe fn readable(raw: NonNull<c_void>) -> NonNull<[u8]>;

    /// Returns the bytes that the device writes.
    ///
    /// # Safety
    ///
    /// `raw` was returned by [`into_raw`](Self::into_raw) and not taken back since.
    unsafe fn writable(raw: NonNull<c_void>) -> NonNull<[u8]>;
}

/// Memory that a device writes by DMA, aligned and padded so that no other data shares its cache
/// lines. The counterpart of C's `__dma_from_device_group_begin()` and `_end()`.
///
/// # Examples
///
/// ```
/// use kernel::virtio::DmaFromDevice;
///
/// assert_eq!(align_of::<DmaFromDevice<u32>>() % 64, 0);
/// assert_eq!(size_of::<DmaFromDevice<u32>>(), align_of::<DmaFromDevice<u32>>());
/// ```
// `repr(align)` takes a literal only: the largest that any architecture needs.
#[repr(C, align(128))]
pub struct DmaFromDevice<T>(T);

const _: () = assert!(
    align_of::<DmaFromDevice<u8>>() >= bindings::ARCH_DMA_MINALIGN,
    "an architecture needs more than 128 bytes of DMA alignment"
);

impl<T> DmaFromDevice<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

/// A little-endian 32-bit integer of a request or response.
///
/// # Examples
///
/// ```
/// use kernel::virtio::Le32;
///
/// assert_eq!(Le32::new(7).get(), 7);
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Le32(u32);

impl Le32 {
    /// Converts from CPU byte order.
    pub const fn new(value: u32) -> Self {
        Self(value.to_le())
    }

    /// Returns the value in CPU byte order.
    pub const fn get(self) -> u32 {
        u32::from_le(self.0)
    }
}

// SAFETY: A transparent wrapper of an integer has no padding and no interior mutability.
unsafe impl AsBytes for Le32 {}
// SAFETY: Any bit pattern is a valid integer.
unsafe impl FromBytes for Le32 {}

/// A request that the device reads, and the response it writes, in one allocation.
///
/// `KBox<Command<O, I>>` is a [`Buffer`]. Use `()` for `O` or `I` if there is no such part.
///
/// # Examples
///
/// ```
/// use kernel::virtio::{
///     Command,
///     Le32, //
/// };
///
/// let mut flush = KBox::new(Command::new(Le32::new(0), Le32::new(!0)), GFP_KERNEL)?;
///
/// assert_eq!(flush.response().get(), !0);
/// flush.set_response(Le32::new(1));
/// assert_eq!(flush.response().get(), 1);
/// # Ok::<(), Error>(())
/// ```
#[repr(C)]
pub struct Command<O, I> {
    request: O,
    response: DmaFromDevice<I>,
}

impl<O, I> Command<O, I> {
    /// Makes a command with `request` and, until the device answers, `response`.
    pub const fn new(request: O, response: I) -> Self {
        Self {
            request,
            response: DmaFromDevice::new(response),
        }
    }

    /// Returns the request, to be changed before the command is added.
    pub fn request_mut(&mut self) -> &mut O {
        &mut self.request
    }

    /// Returns the response. The queue's used length is how much of it the device reports as
    /// written.
    pub fn response(&self) -> I
    where
        I: Copy,
    {
        // VOLATILE: A host that violates the protocol can still write here; the value is read once,
        // so that the driver checks and uses the same value.
        //
        // SAFETY: The field is valid, aligned and initialised; `I: Copy`.
        unsafe { (&raw const self.response.0).read_volatile() }
    }

    /// Sets the response in advance, e.g. to a value that the device never sends.
    pub fn set_response(&mut self, response: I) {
        self.response.0 = response;
    }
}

// SAFETY:
// - A `KBox` is in the linear mapping, does not move, and is the only owner of its memory.
// - `Command` is `repr(C)`: the request lies before the response, and `DmaFromDevice` gives the
//   response cache lines of its own.
// - All bytes of the request are initialised (`AsBytes`). Any byte is valid for the response
//   (`FromBytes`), which is initialised before the device writes to it.
unsafe impl<O, I> Buffer for KBox<Command<O, I>>
where
    O: AsBytes + Send + 'static,
    I: AsBytes + FromBytes + Send + 'static,
{
    fn into_raw(self) -> NonNull<c_void> {
        const { assert!(size_of::<O>() + size_of::<I>() > 0) };

        // SAFETY: A box is never null.
        unsafe { NonNull::new_unchecked(KBox::into_raw(self)) }.cast()
    }

    unsafe fn from_raw(raw: NonNull<c_void>) -> Self {
        // SAFETY: By the safety requirements `raw` is from `KBox::into_raw`, once.
        unsafe { KBox::from_raw(raw.cast::<Command<O, I>>().as_ptr()) }
    }

    unsafe fn readable(raw: NonNull<c_void>) -> NonNull<[u8]> {
        let command = raw.cast::<Command<O, I>>().as_ptr();

        // SAFETY: By the safety requirements `raw` points to a `Command`.
        let request = unsafe { NonNull::new_unchecked(&raw mut (*command).request) };

        NonNull::slice_from_raw_parts(request.cast(), size_of::<O>())
    }

    unsafe fn writable(raw: NonNull<c_void>) -> NonNull<[u8]> {
        let command = raw.cast::<Command<O, I>>().as_ptr();

        // SAFETY: By the safety requirements `raw` points to a `Command`.
        let response = unsafe { NonNull::new_unchecked(&raw mut (*command).response.0) };

        NonNull::slice_from_raw_parts(response.cast(), size_of::<I>())
    }
}
