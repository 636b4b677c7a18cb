// SPDX-License-Identifier: GPL-2.0

//! The device's configuration space, read as typed little-endian fields.

use super::Device;
use crate::{
    bindings,
    device::Bound,
    prelude::*, //
};
use core::marker::PhantomData;

mod private {
    pub trait Sealed {}
}

/// A little-endian integer of the configuration space: `u8`, `u16`, `u32` or `u64`.
pub trait ConfigInt: private::Sealed + Copy + Default {
    /// Converts from the representation in configuration space.
    fn from_le(raw: Self) -> Self;

    /// Converts to the representation in configuration space.
    fn to_le(self) -> Self;
}

macro_rules! impl_config_int {
    ($($ty:ty),*) => {$(
        impl private::Sealed for $ty {}

        impl ConfigInt for $ty {
            fn from_le(raw: Self) -> Self {
                <$ty>::from_le(raw)
            }

            fn to_le(self) -> Self {
                <$ty>::to_le(self)
            }
        }
    )*};
}

impl_config_int!(u8, u16, u32, u64);

/// The place of a field of type `T` in a device type's configuration space.
///
/// # Examples
///
/// ```
/// use core::mem::offset_of;
/// use kernel::virtio::Field;
///
/// #[repr(C)]
/// struct Layout {
///     start: u64,
///     size: u64,
/// }
///
/// const SIZE: Field<u64> = Field::at(offset_of!(Layout, size));
///
/// assert_eq!(SIZE.offset(), 8);
/// ```
pub struct Field<T: ConfigInt> {
    offset: u32,
    _ty: PhantomData<T>,
}

impl<T: ConfigInt> Field<T> {
    /// Makes the field at `offset` bytes from the start of the device-specific configuration.
    ///
    /// # Panics
    ///
    /// If it is not within the first 256 bytes, which every transport maps; a `const` then does not
    /// compile.
    pub const fn at(offset: usize) -> Self {
        assert!(offset <= 256 - size_of::<T>());

        Self {
            offset: offset as u32,
            _ty: PhantomData,
        }
    }

    /// Returns the offset in bytes.
    pub const fn offset(&self) -> usize {
        self.offset as usize
    }
}

/// Access to a bound device's configuration space.
///
/// All accesses may sleep. To access a field that is not in the device's configuration space is a
/// bug of the driver or the device; the PCI transport panics.
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
/// const START: Field<u64> = Field::at(0);
/// const SIZE: Field<u64> = Field::at(8);
///
/// fn range(vdev: &virtio::Device<Bound>) -> Result<(u64, u64)> {
///     let config = vdev.config()?;
///
///     // Both fields of one and the same generation of the configuration.
///     Ok(config.consistent(|c| (c.read(START), c.read(SIZE))))
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

    /// Reads one field. If the transport needs several accesses, they are repeated until the
    /// device's configuration generation does not change meanwhile.
    pub fn read<T: ConfigInt>(&self, field: Field<T>) -> T {
        let mut raw = T::default();

        // SAFETY: The device is valid and has a `get` by the type invariant; `field` is within what
        // is mapped; `raw` is writable for the size of `T`, and any bit pattern is a valid integer.
        unsafe {
            bindings::virtio_cread_many(
                self.dev.as_raw(),
                field.offset,
                (&raw mut raw).cast(),
                1,
                size_of::<T>(),
            )
        };

        T::from_le(raw)
    }

    /// Writes one field.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`] if the transport cannot write.
    pub fn write<T: ConfigInt>(&self, field: Field<T>, value: T) -> Result {
        let set = self.dev.ops().set.ok_or(EOPNOTSUPP)?;
        let raw = value.to_le();

        // SAFETY: The device is valid, `raw` is readable for the size of `T`, and `field` is within
        // what is mapped.
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
    pub fn consistent<R>(&self, mut read: impl FnMut(&Self) -> R) -> R {
        let mut generation = self.generation();

        loop {
            let result = read(self);
            let now = self.generation();

            if now == generation {
                return result;
            }
            generation = now;
        }
    }

    /// Returns the device's configuration generation, or 0 if the transport has none.
    pub fn generation(&self) -> u32 {
        match self.dev.ops().generation {
            // SAFETY: The device is valid.
            Some(generation) => unsafe { generation(self.dev.as_raw()) },
            None => 0,
        }
    }
}
