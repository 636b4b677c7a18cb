// SPDX-License-Identifier: GPL-2.0

//! Feature bits and the device status.

use crate::bindings;

/// A feature bit, of the device type or of the transport and ring.
///
/// C header: [`include/uapi/linux/virtio_config.h`](srctree/include/uapi/linux/virtio_config.h)
///
/// # Invariants
///
/// The bit number is below `VIRTIO_FEATURES_BITS`, i.e. within a device's feature array.
///
/// # Examples
///
/// ```
/// use kernel::virtio::Feature;
///
/// const SHMEM_REGION: Feature = Feature::new::<0>();
///
/// assert_eq!(SHMEM_REGION.bit(), 0);
/// assert_ne!(SHMEM_REGION, Feature::RING_EVENT_IDX);
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature(u32);

impl Feature {
    /// The descriptors of a request in a table that the ring allocates for it.
    pub const RING_INDIRECT_DESC: Self = Self::new::<{ bindings::VIRTIO_RING_F_INDIRECT_DESC }>();

    /// Notifications and interrupts suppressed by event index.
    pub const RING_EVENT_IDX: Self = Self::new::<{ bindings::VIRTIO_RING_F_EVENT_IDX }>();

    /// A device that complies with virtio 1.0 or later.
    pub const VERSION_1: Self = Self::new::<{ bindings::VIRTIO_F_VERSION_1 }>();

    /// The device accesses memory through the platform's DMA mapping, e.g. behind an IOMMU.
    pub const ACCESS_PLATFORM: Self = Self::new::<{ bindings::VIRTIO_F_ACCESS_PLATFORM }>();

    /// The packed ring layout.
    pub const RING_PACKED: Self = Self::new::<{ bindings::VIRTIO_F_RING_PACKED }>();

    /// The device uses buffers in the order in which they were made available.
    pub const IN_ORDER: Self = Self::new::<{ bindings::VIRTIO_F_IN_ORDER }>();

    /// Makes the feature with bit number `BIT`; a number out of range does not compile.
    #[inline]
    pub const fn new<const BIT: u32>() -> Self {
        const { assert!(BIT < bindings::VIRTIO_FEATURES_BITS) };

        // INVARIANT: Asserted above.
        Self(BIT)
    }

    /// Returns the bit number.
    #[inline]
    pub const fn bit(self) -> u32 {
        self.0
    }
}

crate::impl_flags!(
    /// The device status field.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::virtio::StatusBit;
    ///
    /// let status = StatusBit::DriverOk | StatusBit::NeedsReset;
    ///
    /// assert!(status.contains(StatusBit::NeedsReset));
    /// assert!(!status.contains(StatusBit::Failed));
    /// assert!(!status.is_reset());
    /// assert!(!status.is_gone());
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status(u8);

    /// A bit of the device status field.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum StatusBit {
        /// The guest has found the device.
        Acknowledge = bindings::VIRTIO_CONFIG_S_ACKNOWLEDGE as u8,

        /// The guest has a driver for the device.
        Driver = bindings::VIRTIO_CONFIG_S_DRIVER as u8,

        /// The driver is ready to drive the device.
        DriverOk = bindings::VIRTIO_CONFIG_S_DRIVER_OK as u8,

        /// The features were accepted by both sides.
        FeaturesOk = bindings::VIRTIO_CONFIG_S_FEATURES_OK as u8,

        /// The device had an error from which only a reset recovers it.
        NeedsReset = bindings::VIRTIO_CONFIG_S_NEEDS_RESET as u8,

        /// The guest has given up on the device.
        Failed = bindings::VIRTIO_CONFIG_S_FAILED as u8,
    }
);

impl Status {
    /// Makes the status from the byte read from the device.
    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns whether no bit is set, as after a reset.
    #[inline]
    pub const fn is_reset(self) -> bool {
        self.0 == 0
    }

    /// Returns whether all bits are set: the device was pulled out, and all reads of it return
    /// ones. [`NeedsReset`](StatusBit::NeedsReset) is then among them, but a transport that resets
    /// the device waits for ever.
    #[inline]
    pub const fn is_gone(self) -> bool {
        self.0 == !0
    }
}
