// SPDX-License-Identifier: GPL-2.0

//! Buffers that a driver lends to the device.

use crate::{
    bindings,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    types::Opaque, //
};
use core::{
    ffi::c_void,
    mem,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::{
        self,
        NonNull, //
    },
};

/// The segments of one buffer, in the order in which the device gets them.
///
/// C header: [`include/linux/scatterlist.h`](srctree/include/linux/scatterlist.h)
pub struct Segments {
    entries: [Opaque<bindings::scatterlist>; Self::MAX],
    /// Of one or more segments each. The entry with the same index is used where it is null.
    lists: [*mut bindings::scatterlist; Self::MAX],
    len: usize,
    descriptors: usize,
    overflow: bool,
}

impl Segments {
    /// How many segments a buffer can have. All of a [`PagesFromDevice`] count as one.
    pub const MAX: usize = 16;

    pub(super) fn new() -> Self {
        Self {
            entries: [const { Opaque::uninit() }; Self::MAX],
            lists: [ptr::null_mut(); Self::MAX],
            len: 0,
            descriptors: 0,
            overflow: false,
        }
    }

    /// Appends a segment; an empty one is left out.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "sg_init_one")]
    pub fn push(&mut self, memory: NonNull<[u8]>) {
        if memory.is_empty() {
            return;
        }
        let (Some(entry), Ok(len)) = (self.entries.get(self.len), u32::try_from(memory.len()))
        else {
            self.overflow = true;
            return;
        };

        // SAFETY: `entry` is writable. The memory is in the linear mapping, by the safety
        // requirements of `Segmented`, whose methods are the only ones that get a `Segments`.
        unsafe { bindings::sg_init_one(entry.get(), memory.cast::<c_void>().as_ptr(), len) };
        self.len += 1;
        self.descriptors += 1;
    }

    /// Appends a table of segments, which is a part of the buffer. Its memory may lie anywhere.
    fn push_table(&mut self, table: &[Opaque<bindings::scatterlist>]) {
        let Some(first) = table.first() else { return };
        let Some(list) = self.lists.get_mut(self.len) else {
            self.overflow = true;
            return;
        };

        *list = first.get();
        self.len += 1;
        self.descriptors += table.len();
    }

    /// Returns the number of lists.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of descriptors that the segments need.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// Returns the segments as `virtqueue_add_sgs()` takes them, or [`None`] if there are none or
    /// too many.
    pub(super) fn lists(&mut self) -> Option<*mut *mut bindings::scatterlist> {
        if self.len == 0 || self.overflow {
            return None;
        }
        // Now, because the entries do not move any more.
        for (list, entry) in self.lists.iter_mut().zip(&self.entries[..self.len]) {
            if list.is_null() {
                *list = entry.get();
            }
        }
        Some(self.lists.as_mut_ptr())
    }
}

/// Memory that can be made available to a device: segments that the device reads, followed by
/// segments that it writes.
///
/// A [`KBox`] of it is a [`Buffer`]. [`Command`] suits most drivers; the length of [`ToDevice`] and
/// [`FromDevice`] is chosen at run time, and [`PagesFromDevice`] consists of pages. A tuple has the
/// segments of its members: first those that the device reads, of all members, and then those that
/// it writes.
///
/// # Safety
///
/// - The memory behind the segments belongs to the value alone, stays valid and where it is as long
///   as the value is neither moved nor used, and lies in the kernel's linear mapping (no `vmalloc`,
///   no stack) if it is [pushed](Segments::push).
/// - Segments that the device reads are initialised. Any byte is valid in those that it writes.
/// - No two segments overlap. One that the device writes shares a cache line with nothing else, if
///   DMA is not coherent.
pub unsafe trait Segmented: Send + 'static {
    /// Appends the segments that the device reads.
    ///
    /// # Safety
    ///
    /// `this` is valid, and is not accessed at the same time.
    unsafe fn readable(this: NonNull<Self>, segments: &mut Segments) {
        let _ = (this, segments);
    }

    /// Appends the segments that the device writes.
    ///
    /// # Safety
    ///
    /// `this` is valid, and is not accessed at the same time.
    unsafe fn writable(this: NonNull<Self>, segments: &mut Segments) {
        let _ = (this, segments);
    }
}

/// An owner of memory that can be made available to the device on a
/// [`Virtqueue`](super::Virtqueue).
///
/// Adding it moves it into the queue, so that the driver cannot read, write or free the memory
/// while the device uses it; the queue returns it when the device has used it or when the queue is
/// stopped.
///
/// # Safety
///
/// - `into_raw` returns a pointer that stays valid until it is given to `from_raw`.
/// - The value behind that pointer is not accessed in between, except by [`Segmented`].
pub unsafe trait Buffer: Sized + Send + 'static {
    /// What the buffer owns.
    type Segments: Segmented;

    /// Turns the owner into a pointer, the queue's token.
    fn into_raw(self) -> NonNull<Self::Segments>;

    /// Turns the pointer back into the owner.
    ///
    /// # Safety
    ///
    /// `raw` was returned by [`into_raw`](Self::into_raw) and not taken back since.
    unsafe fn from_raw(raw: NonNull<Self::Segments>) -> Self;
}

// SAFETY: A box is the only owner of its content, which does not move.
unsafe impl<S: Segmented> Buffer for KBox<S> {
    type Segments = S;

    fn into_raw(self) -> NonNull<S> {
        // SAFETY: A box is never null.
        unsafe { NonNull::new_unchecked(KBox::into_raw(self)) }
    }

    unsafe fn from_raw(raw: NonNull<S>) -> Self {
        // SAFETY: By the safety requirements `raw` is from `KBox::into_raw`, once.
        unsafe { KBox::from_raw(raw.as_ptr()) }
    }
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
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

macro_rules! little_endian {
    ($($(#[$attr:meta])* $name:ident: $ty:ty),* $(,)?) => {$(
        $(#[$attr])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name($ty);

        impl $name {
            /// Converts from CPU byte order.
            #[inline]
            pub const fn new(value: $ty) -> Self {
                Self(value.to_le())
            }

            /// Returns the value in CPU byte order.
            #[inline]
            pub const fn get(self) -> $ty {
                <$ty>::from_le(self.0)
            }
        }

        // SAFETY: A transparent wrapper of an integer has no padding and no interior mutability.
        unsafe impl AsBytes for $name {}
        // SAFETY: Any bit pattern is a valid integer.
        unsafe impl FromBytes for $name {}
    )*};
}

little_endian! {
    /// A little-endian 16-bit integer of a request or response.
    Le16: u16,
    /// A little-endian 32-bit integer of a request or response.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::virtio::Le32;
    ///
    /// assert_eq!(Le32::new(7).get(), 7);
    /// ```
    Le32: u32,
    /// A little-endian 64-bit integer of a request or response.
    Le64: u64,
}

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
    #[inline]
    pub const fn new(request: O, response: I) -> Self {
        Self {
            request,
            response: DmaFromDevice::new(response),
        }
    }

    /// Returns the request, to be changed before the command is added.
    #[inline]
    pub fn request_mut(&mut self) -> &mut O {
        &mut self.request
    }

    /// Returns the response. The queue's used length is how much of it the device reports as
    /// written.
    #[inline]
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
    #[inline]
    pub fn set_response(&mut self, response: I) {
        self.response.0 = response;
    }
}

// SAFETY:
// - A `KBox` is in the linear mapping, and owns its content.
// - `Command` is `repr(C)`: the request lies before the response, and `DmaFromDevice` gives the
//   response cache lines of its own.
// - All bytes of the request are initialised (`AsBytes`). Any byte is valid for the response
//   (`FromBytes`), which is initialised before the device writes to it.
unsafe impl<O, I> Segmented for Command<O, I>
where
    O: AsBytes + Send + 'static,
    I: AsBytes + FromBytes + Send + 'static,
{
    unsafe fn readable(this: NonNull<Self>, segments: &mut Segments) {
        // SAFETY: By the safety requirements `this` is valid.
        let request = unsafe { NonNull::new_unchecked(&raw mut (*this.as_ptr()).request) };

        segments.push(NonNull::slice_from_raw_parts(
            request.cast(),
            size_of::<O>(),
        ));
    }

    unsafe fn writable(this: NonNull<Self>, segments: &mut Segments) {
        // SAFETY: By the safety requirements `this` is valid.
        let response = unsafe { NonNull::new_unchecked(&raw mut (*this.as_ptr()).response.0) };

        segments.push(NonNull::slice_from_raw_parts(
            response.cast(),
            size_of::<I>(),
        ));
    }
}

/// Returns the memory of a vector's elements.
fn bytes_of<T>(vec: &mut KVec<T>) -> NonNull<[u8]> {
    // SAFETY: The pointer of a vector is never null.
    let start = unsafe { NonNull::new_unchecked(vec.as_mut_ptr()) };

    NonNull::slice_from_raw_parts(start.cast(), mem::size_of_val(&vec[..]))
}

/// Elements that the device reads, in an allocation of their own: one segment.
///
/// # Examples
///
/// ```
/// use kernel::virtio::{
///     Le32,
///     ToDevice, //
/// };
///
/// // Memory for 256 page numbers, which is used again and again.
/// let mut pages = KBox::new(ToDevice::<Le32>::with_capacity(256)?, GFP_KERNEL)?;
///
/// pages.push_within_capacity(Le32::new(1))?;
/// assert_eq!(pages.len(), 1);
/// # Ok::<(), Error>(())
/// ```
pub struct ToDevice<T>(KVec<T>);

impl<T> ToDevice<T> {
    /// Allocates memory for so many elements.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn with_capacity(elements: usize) -> Result<Self> {
        Ok(Self(KVec::with_capacity(elements, GFP_KERNEL)?))
    }
}

impl<T> Deref for ToDevice<T> {
    type Target = KVec<T>;

    fn deref(&self) -> &KVec<T> {
        &self.0
    }
}

impl<T> DerefMut for ToDevice<T> {
    fn deref_mut(&mut self) -> &mut KVec<T> {
        &mut self.0
    }
}

// SAFETY: `kmalloc()` memory is in the linear mapping, belongs to the vector alone and does not
// move. All bytes of the elements are initialised (`AsBytes`).
unsafe impl<T: AsBytes + Send + 'static> Segmented for ToDevice<T> {
    unsafe fn readable(this: NonNull<Self>, segments: &mut Segments) {
        // SAFETY: By the safety requirements `this` is valid and not accessed otherwise.
        segments.push(bytes_of(unsafe { &mut (*this.as_ptr()).0 }));
    }
}

/// Elements that the device writes, in an allocation of their own: one segment.
///
/// # Examples
///
/// ```
/// use kernel::virtio::FromDevice;
///
/// let random = KBox::new(FromDevice::new(64, 0_u8)?, GFP_KERNEL)?;
///
/// assert_eq!(random.len(), 64);
/// # Ok::<(), Error>(())
/// ```
pub struct FromDevice<T>(KVec<T>);

impl<T: Clone> FromDevice<T> {
    /// Allocates memory for so many elements, which have this value until the device writes to
    /// them.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(elements: usize, value: T) -> Result<Self> {
        Ok(Self(KVec::from_elem(value, elements, GFP_KERNEL)?))
    }
}

impl<T> Deref for FromDevice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

// SAFETY: `kmalloc()` memory is in the linear mapping, belongs to the vector alone, is aligned for
// DMA, and does not move. Any byte is valid for the elements (`FromBytes`).
unsafe impl<T: AsBytes + FromBytes + Send + 'static> Segmented for FromDevice<T> {
    unsafe fn writable(this: NonNull<Self>, segments: &mut Segments) {
        // SAFETY: By the safety requirements `this` is valid and not accessed otherwise.
        segments.push(bytes_of(unsafe { &mut (*this.as_ptr()).0 }));
    }
}

/// Any number of pages that the device writes, a segment each.
///
/// # Examples
///
/// ```
/// use kernel::{
///     page::Page,
///     virtio::PagesFromDevice, //
/// };
///
/// let mut pages = KVec::with_capacity(20, GFP_KERNEL)?;
/// for _ in 0..20 {
///     pages.push_within_capacity(Page::alloc_page(GFP_KERNEL)?)?;
/// }
///
/// let buffer = KBox::new(PagesFromDevice::new(pages)?, GFP_KERNEL)?;
/// assert_eq!(buffer.len(), 20);
/// # Ok::<(), Error>(())
/// ```
pub struct PagesFromDevice {
    pages: KVec<Page>,
    table: KVec<Opaque<bindings::scatterlist>>,
}

impl PagesFromDevice {
    /// Describes the pages to the device.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias("sg_init_table", "sg_set_page"))]
    pub fn new(pages: KVec<Page>) -> Result<Self> {
        let len = pages.len().try_into()?;
        let mut table = KVec::with_capacity(pages.len(), GFP_KERNEL)?;

        for _ in &pages {
            table.push_within_capacity(Opaque::uninit())?;
        }
        if len > 0 {
            // SAFETY: The table has `len` entries.
            unsafe { bindings::sg_init_table(table.as_mut_ptr().cast(), len) };
        }
        for (entry, page) in table.iter().zip(&pages) {
            // SAFETY: The entry was initialised above. The page is as long as the table.
            unsafe { bindings::sg_set_page(entry.get(), page.as_ptr(), PAGE_SIZE as u32, 0) };
        }
        Ok(Self { pages, table })
    }
}

impl Deref for PagesFromDevice {
    type Target = [Page];

    #[inline]
    fn deref(&self) -> &[Page] {
        &self.pages
    }
}

// SAFETY: The pages belong to the value alone, do not move, and are whole cache lines. A page can
// be in a segment wherever it lies, because the table has no addresses. What a page contains is
// only accessed through raw pointers, for which any byte is valid.
unsafe impl Segmented for PagesFromDevice {
    unsafe fn writable(this: NonNull<Self>, segments: &mut Segments) {
        // SAFETY: By the safety requirements `this` is valid and not accessed otherwise.
        segments.push_table(unsafe { &(*this.as_ptr()).table });
    }
}

// SAFETY: By that of both members, which do not overlap.
unsafe impl<A: Segmented, B: Segmented> Segmented for (A, B) {
    unsafe fn readable(this: NonNull<Self>, segments: &mut Segments) {
        let this = this.as_ptr();

        // SAFETY: By the safety requirements `this` is valid, and so are its members.
        unsafe {
            A::readable(NonNull::new_unchecked(&raw mut (*this).0), segments);
            B::readable(NonNull::new_unchecked(&raw mut (*this).1), segments);
        }
    }

    unsafe fn writable(this: NonNull<Self>, segments: &mut Segments) {
        let this = this.as_ptr();

        // SAFETY: By the safety requirements `this` is valid, and so are its members.
        unsafe {
            A::writable(NonNull::new_unchecked(&raw mut (*this).0), segments);
            B::writable(NonNull::new_unchecked(&raw mut (*this).1), segments);
        }
    }
}
