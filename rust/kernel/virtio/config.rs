// SPDX-License-Identifier: GPL-2.0

//! The device's configuration space, read and written as typed fields.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use super::{
    Device,
    Feature, //
};
use crate::{
    bindings,
    device::Bound,
    prelude::*,
    task::might_sleep, //
};
use core::marker::PhantomData;

mod private {
    pub trait Sealed {
        /// Converts between the CPU's byte order and a little-endian or big-endian one, in either
        /// direction.
        fn convert(self, little_endian: bool) -> Self;
    }
}

/// An integer of the configuration space: `u8`, `u16`, `u32` or `u64`.
pub trait ConfigInt: private::Sealed + Copy + Default {}

macro_rules! impl_config_int {
    ($($ty:ty),*) => {$(
        impl private::Sealed for $ty {
            fn convert(self, little_endian: bool) -> Self {
                if little_endian {
                    self.to_le()
                } else {
                    self.to_be()
                }
            }
        }

        impl ConfigInt for $ty {}
    )*};
}

impl_config_int!(u8, u16, u32, u64);

/// A field of type `T` in a device type's configuration space, made by [`field!`].
///
/// It has the device's byte order, unless it is declared [little-endian](Self::le).
///
/// # Invariants
///
/// `offset` is a multiple of the size of `T`, and `offset` plus this size does not overflow.
///
/// [`field!`]: crate::virtio::field
#[derive(Clone, Copy)]
pub struct Field<T: ConfigInt> {
    offset: u32,
    always_le: bool,
    _ty: PhantomData<T>,
}

impl<T: ConfigInt> Field<T> {
    /// For [`field!`](crate::virtio::field) only. The accessor, which is never called, has the
    /// field's type.
    #[doc(hidden)]
    pub const fn new<L>(offset: usize, _: fn(&L) -> T) -> Self {
        assert!(
            offset % size_of::<T>() == 0,
            "the field is not naturally aligned"
        );
        assert!(offset <= u32::MAX as usize - size_of::<T>());

        // INVARIANT: Asserted above.
        Self {
            offset: offset as u32,
            always_le: false,
            _ty: PhantomData,
        }
    }

    /// Declares the field little-endian with legacy devices, too.
    ///
    /// For device types whose layout in C has `__le64` and the like, not `__virtio64`.
    #[doc(alias = "virtio_cread_le")]
    #[doc(alias = "virtio_cwrite_le")]
    #[inline]
    pub const fn le(self) -> Self {
        Self {
            always_le: true,
            ..self
        }
    }

    /// Returns the offset in bytes from the start of the configuration space.
    #[inline]
    pub const fn offset(&self) -> usize {
        self.offset as usize
    }

    /// Returns the offset of the first byte after the field.
    const fn end(&self) -> usize {
        self.offset() + size_of::<T>()
    }
}

/// Makes the [`Field`] for a field of a layout, which is a `#[repr(C)]` type, like those that
/// bindgen makes of the structures in `include/uapi/linux/virtio_*.h`.
///
/// The field's type, one of the [`ConfigInt`]s, and its offset are those that the layout has. A
/// field that is not naturally aligned does not compile, because a transport may access it as a
/// whole.
///
/// # Examples
///
/// ```
/// use kernel::virtio::{
///     self,
///     Field, //
/// };
///
/// #[repr(C, packed)]
/// struct Geometry {
///     cylinders: u16,
///     heads: u8,
///     sectors: u8,
/// }
///
/// #[repr(C, packed)]
/// struct Layout {
///     capacity: u64,
///     geometry: Geometry,
/// }
///
/// const CAPACITY: Field<u64> = virtio::field!(Layout, capacity);
/// const SECTORS: Field<u8> = virtio::field!(Layout, geometry.sectors);
///
/// assert_eq!(CAPACITY.offset(), 0);
/// assert_eq!(SECTORS.offset(), 11);
/// ```
///
/// This one is not aligned:
///
/// ```ignore,compile_fail,E0080
/// use kernel::virtio::{
///     self,
///     Field, //
/// };
///
/// #[repr(C, packed)]
/// struct Layout {
///     kind: u16,
///     length: u32,
/// }
///
/// const LENGTH: Field<u32> = virtio::field!(Layout, length);
/// # let _ = LENGTH.offset();
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! virtio_field {
    ($layout:ty, $($field:ident).+ $(,)?) => {
        const {
            $crate::virtio::Field::new::<$layout>(
                ::core::mem::offset_of!($layout, $($field).+),
                |layout| layout.$($field).+,
            )
        }
    };
}

#[doc(inline)]
pub use crate::virtio_field as field;

/// Access to a bound device's configuration space.
///
/// # Invariants
///
/// The transport of `dev` implements `get`.
///
/// # Examples
///
/// ```
/// use kernel::{
///     device::Bound,
///     virtio::{
///         self,
///         Field, //
///     },
/// };
///
/// #[repr(C)]
/// struct Layout {
///     start: u64,
///     size: u64,
///     enabled: u8,
/// }
///
/// const START: Field<u64> = virtio::field!(Layout, start);
/// const SIZE: Field<u64> = virtio::field!(Layout, size);
/// const ENABLED: Field<u8> = virtio::field!(Layout, enabled);
///
/// fn range(vdev: &virtio::Device<Bound>) -> Result<(u64, u64)> {
///     let config = vdev.config()?;
///
///     config.write(ENABLED, 1)?;
///     // Both fields of one and the same generation of the configuration.
///     config.consistent(|c| Ok((c.read(START)?, c.read(SIZE)?)))
/// }
/// ```
pub struct Config<'a> {
    dev: &'a Device<Bound>,
}

impl<'a> Config<'a> {
    pub(super) fn new(dev: &'a Device<Bound>) -> Result<Self> {
        if dev.ops().get.is_none() {
            return Err(EINVAL);
        }

        // INVARIANT: Checked above; the operations of a transport do not change.
        Ok(Self { dev })
    }

    /// Returns the length that the transport can access, or [`usize::MAX`] if it checks each access
    /// itself.
    #[cfg(not(out_of_tree))]
    fn len(&self) -> usize {
        match self.dev.ops().config_len {
            // SAFETY: The device is valid.
            Some(config_len) => unsafe { config_len(self.dev.as_raw()) },
            None => usize::MAX,
        }
    }

    /// Returns a length that can be accessed where transports do not report it.
    ///
    /// Legacy PCI accesses what follows the BAR, so legacy devices are refused. Some drivers of
    /// vDPA devices check no access, but none of them has a device with a Rust driver.
    #[cfg(out_of_tree)]
    fn len(&self) -> usize {
        if self.dev.test_feature(Feature::VERSION_1) {
            // SAFETY: The device is valid.
            unsafe { bindings::virtio_config_len(self.dev.as_raw()) }
        } else {
            0
        }
    }

    fn check<T: ConfigInt>(&self, field: &Field<T>) -> Result {
        if field.end() > self.len() {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Returns whether the device's `field` is little-endian.
    fn is_le<T: ConfigInt>(&self, field: &Field<T>) -> bool {
        field.always_le || is_little_endian(self.dev.test_feature(Feature::VERSION_1))
    }

    /// Reads one field. If the transport needs several accesses, they are repeated until the
    /// device's configuration generation does not change meanwhile.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the field is beyond what the transport can access. The device is then not
    /// accessed.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtio_cread")]
    pub fn read<T: ConfigInt>(&self, field: Field<T>) -> Result<T> {
        let mut raw = T::default();

        self.check(&field)?;
        // SAFETY: The device is valid, and bound, so its transport serves accesses; it has a `get`
        // by the type invariant. `field` is within what `get` can access, or `get` checks that, and
        // is aligned by its invariant. `raw` is writable for the size of `T`, and any bit pattern
        // is a valid integer.
        unsafe {
            bindings::virtio_cread_many(
                self.dev.as_raw(),
                field.offset,
                (&raw mut raw).cast(),
                1,
                size_of::<T>(),
            )
        };

        Ok(raw.convert(self.is_le(&field)))
    }

    /// Writes one field.
    ///
    /// # Errors
    ///
    /// - [`EOPNOTSUPP`] if the transport cannot write.
    /// - [`EINVAL`] if the field is beyond what the transport can access. The device is then not
    ///   accessed.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtio_cwrite")]
    pub fn write<T: ConfigInt>(&self, field: Field<T>, value: T) -> Result {
        let set = self.dev.ops().set.ok_or(EOPNOTSUPP)?;
        let raw = value.convert(self.is_le(&field));

        might_sleep();
        self.check(&field)?;
        // SAFETY: The device is valid, and bound, so its transport serves accesses. `field` is
        // within what `set` can access, or `set` checks that, and is aligned by its invariant.
        // `raw` is readable for the size of `T`.
        unsafe {
            set(
                self.dev.as_raw(),
                field.offset,
                (&raw const raw).cast(),
                size_of::<T>() as u32,
            )
        };

        Ok(())
    }

    /// Calls `read` until the configuration does not change while it runs, so that all fields that
    /// it reads belong together.
    ///
    /// This does not return as long as the device changes its configuration.
    ///
    /// # Errors
    ///
    /// The error of `read`, which is then not called again.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn consistent<R>(&self, mut read: impl FnMut(&Self) -> Result<R>) -> Result<R> {
        let mut generation = self.generation();

        loop {
            let result = read(self)?;
            let now = self.generation();

            if now == generation {
                return Ok(result);
            }
            generation = now;
        }
    }

    /// Returns the device's configuration generation, or 0 if the transport has none.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtio_cread_generation")]
    pub fn generation(&self) -> u32 {
        match self.dev.ops().generation {
            // SAFETY: The device is valid.
            Some(generation) => unsafe { generation(self.dev.as_raw()) },
            None => 0,
        }
    }
}

/// Returns whether a device is little-endian. A legacy one has the guest's byte order.
#[doc(alias = "virtio_is_little_endian")]
const fn is_little_endian(version_1: bool) -> bool {
    version_1 || cfg!(target_endian = "little")
}

#[kunit_tests(rust_virtio_config)]
mod tests {
    use super::{
        private::Sealed,
        *, //
    };
    use crate::ffi::{
        c_uint,
        c_void, //
    };

    #[repr(C)]
    struct Layout {
        byte: u8,
        half: u16,
        word: u32,
        double: u64,
    }

    const BYTE: Field<u8> = field!(Layout, byte);
    const HALF: Field<u16> = field!(Layout, half);
    const WORD: Field<u32> = field!(Layout, word);
    /// Begins within [`LEN`], and ends behind it.
    const DOUBLE: Field<u64> = field!(Layout, double);

    /// How much of the layout the transport can access.
    const LEN: usize = size_of::<Layout>() - 2;

    /// A device that is on no bus, with a transport whose configuration space is memory.
    #[repr(C)]
    struct Fake {
        vdev: bindings::virtio_device,
        ops: bindings::virtio_config_ops,
        config: [u8; size_of::<Layout>()],
        accesses: usize,
        generation: u32,
    }

    /// Returns the fake's bytes at `offset`, and counts the access.
    ///
    /// # Safety
    ///
    /// `vdev` must be the device of a [`Fake`] that is not used meanwhile, and `offset` that of one
    /// of the fields.
    unsafe fn access(vdev: *mut bindings::virtio_device, offset: c_uint) -> *mut u8 {
        let fake = vdev.cast::<Fake>();

        // SAFETY: By the function's requirements; `vdev` is the first field.
        unsafe {
            (*fake).accesses += 1;
            (&raw mut (*fake).config).cast::<u8>().add(offset as usize)
        }
    }

    extern "C" fn get(
        vdev: *mut bindings::virtio_device,
        offset: c_uint,
        buf: *mut c_void,
        len: c_uint,
    ) {
        // SAFETY: Called for a field of a fake's device, with a buffer of this length.
        unsafe {
            access(vdev, offset).copy_to_nonoverlapping(buf.cast(), len as usize);
        }
    }

    extern "C" fn set(
        vdev: *mut bindings::virtio_device,
        offset: c_uint,
        buf: *const c_void,
        len: c_uint,
    ) {
        // SAFETY: Called for a field of a fake's device, with a buffer of this length.
        unsafe {
            access(vdev, offset).copy_from_nonoverlapping(buf.cast(), len as usize);
        }
    }

    extern "C" fn config_len(_: *mut bindings::virtio_device) -> usize {
        LEN
    }

    /// The configuration changes before the first two reads of its generation.
    extern "C" fn generation(vdev: *mut bindings::virtio_device) -> u32 {
        let fake = vdev.cast::<Fake>();

        // SAFETY: Called for a fake's device, which is not used meanwhile.
        unsafe {
            (*fake).generation = ((*fake).generation + 1).min(2);
            (*fake).generation
        }
    }

    /// Calls `test` with a device, after `change` of its transport.
    fn with_fake(
        change: impl FnOnce(&mut bindings::virtio_config_ops),
        test: impl FnOnce(*mut Fake, &Device<Bound>) -> Result,
    ) -> Result {
        // SAFETY: All fields are valid if they are zero.
        let mut fake = KBox::new(unsafe { core::mem::zeroed::<Fake>() }, GFP_KERNEL)?;
        let fake = &raw mut *fake;

        // SAFETY: `fake` is valid until this function returns, and used by nothing else here. What
        // the tests do with the device uses its features and its transport, which are valid.
        unsafe {
            (*fake).ops.get = Some(get);
            (*fake).ops.set = Some(set);
            (*fake).ops.config_len = Some(config_len);
            change(&mut (*fake).ops);
            (*fake).vdev.config = &raw const (*fake).ops;
            (*fake).vdev.__bindgen_anon_1.features = 1 << Feature::VERSION_1.bit();
            test(fake, &*fake.cast::<Device<Bound>>())
        }
    }

    #[test]
    fn fields_are_those_of_the_layout() {
        assert_eq!(BYTE.offset(), 0);
        assert_eq!(HALF.offset(), 2);
        assert_eq!(WORD.offset(), 4);
        assert_eq!(DOUBLE.offset(), 8);
        assert_eq!(DOUBLE.end(), 16);
    }

    #[test]
    fn byte_order_is_converted() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        let raw = u64::from_ne_bytes(bytes);

        assert_eq!(raw.convert(true), 0x0807_0605_0403_0201);
        assert_eq!(raw.convert(false), 0x0102_0304_0506_0708);
        assert_eq!(u32::from_ne_bytes([1, 2, 3, 4]).convert(false), 0x0102_0304);
        assert_eq!(0x0102u16.convert(true).to_ne_bytes(), [2, 1]);
        assert_eq!(0x0102u16.convert(false).to_ne_bytes(), [1, 2]);
        assert_eq!(7u8.convert(false), 7);

        assert!(is_little_endian(true));
        // A legacy device has the guest's byte order: nothing is converted.
        assert_eq!(raw.convert(is_little_endian(false)), raw);
    }

    #[test]
    fn fields_are_read_and_written() -> Result {
        with_fake(
            |_| (),
            |fake, dev| {
                let config = Config::new(dev)?;

                config.write(BYTE, 1)?;
                config.write(HALF, 0x0302)?;
                config.write(WORD.le(), 0x0706_0504)?;
                // SAFETY: The device is not used meanwhile.
                let bytes = unsafe { (*fake).config };
                assert_eq!(bytes[..8], [1, 0, 2, 3, 4, 5, 6, 7]);

                assert_eq!(config.read(BYTE)?, 1);
                assert_eq!(config.read(HALF.le())?, 0x0302);
                assert_eq!(config.read(WORD)?, 0x0706_0504);
                Ok(())
            },
        )
    }

    #[test]
    fn nothing_beyond_the_configuration_space_is_accessed() -> Result {
        with_fake(
            |_| (),
            |fake, dev| {
                let config = Config::new(dev)?;

                assert_eq!(config.read(DOUBLE), Err(EINVAL));
                assert_eq!(config.write(DOUBLE, 1), Err(EINVAL));
                assert_eq!(config.consistent(|c| c.read(DOUBLE)), Err(EINVAL));
                // SAFETY: The device is not used meanwhile.
                assert_eq!(unsafe { (*fake).accesses }, 0);
                Ok(())
            },
        )
    }

    #[test]
    fn transports_without_an_operation() -> Result {
        with_fake(
            |ops| ops.get = None,
            |_, dev| {
                assert_eq!(Config::new(dev).err(), Some(EINVAL));
                Ok(())
            },
        )?;
        with_fake(
            |ops| {
                ops.set = None;
                ops.config_len = None;
            },
            |_, dev| {
                let config = Config::new(dev)?;

                assert_eq!(config.write(WORD, 1), Err(EOPNOTSUPP));
                assert_eq!(config.read(WORD)?, 0);
                assert_eq!(config.generation(), 0);
                Ok(())
            },
        )
    }

    #[test]
    fn reads_are_repeated_until_they_are_consistent() -> Result {
        with_fake(
            |ops| ops.generation = Some(generation),
            |_, dev| {
                let mut calls = 0;
                Config::new(dev)?.consistent(|_| {
                    calls += 1;
                    Ok(())
                })?;

                assert_eq!(calls, 2);
                Ok(())
            },
        )
    }
}
