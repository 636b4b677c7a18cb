// SPDX-License-Identifier: GPL-2.0

//! The description of a region.

use crate::{
    impl_flags,
    io::{
        PhysAddr,
        ResourceSize, //
    },
    prelude::*, //
};

impl_flags!(
    /// The properties of a region.
    #[derive(Debug, Clone, Default, Copy, PartialEq, Eq)]
    pub struct RegionFlags(usize);

    /// A property of a region.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RegionFlag {
        /// The memory gets page structures, which DAX needs (`ND_REGION_PAGEMAP`).
        Pagemap = 1 << bindings::ND_REGION_PAGEMAP,

        /// Stores are durable as soon as they are visible, even those that are still in a CPU's
        /// cache (`ND_REGION_PERSIST_CACHE`).
        PersistCache = 1 << bindings::ND_REGION_PERSIST_CACHE,

        /// Stores that have left the CPU's caches are durable
        /// (`ND_REGION_PERSIST_MEMCTRL`).
        PersistMemctrl = 1 << bindings::ND_REGION_PERSIST_MEMCTRL,

        /// Stores are durable only after a flush by the [`RegionProvider`](super::RegionProvider)
        /// (`ND_REGION_ASYNC`). Excludes `MAP_SYNC`.
        Async = 1 << bindings::ND_REGION_ASYNC,
    }
);

/// Describes a region of persistent memory that is to be created.
///
/// # Invariants
///
/// `start..=end` is not empty and does not wrap.
///
/// # Examples
///
/// ```
/// use kernel::{
///     nvdimm::{
///         RegionDesc,
///         RegionFlag, //
///     },
///     prelude::*, //
/// };
///
/// let desc = RegionDesc::new(0x1_0000_0000, 0x1000_0000)?
///     .flags(RegionFlag::Pagemap | RegionFlag::Async);
/// # let _ = desc;
///
/// assert_eq!(RegionDesc::new(0x1_0000_0000, 0).err(), Some(EINVAL));
/// assert_eq!(RegionDesc::new(0x1_0000_0000, u64::MAX).err(), Some(EINVAL));
/// # Ok::<(), Error>(())
/// ```
#[doc(alias = "nd_region_desc")]
#[derive(Debug, Clone)]
pub struct RegionDesc {
    pub(super) start: PhysAddr,
    pub(super) end: PhysAddr,
    pub(super) flags: RegionFlags,
    pub(super) numa_node: c_int,
    pub(super) target_node: c_int,
}

impl RegionDesc {
    /// Describes the memory of `size` bytes at the physical address `start`.
    ///
    /// The region gets no [flags](Self::flags), and the system's NUMA nodes of its address: the
    /// node near to the memory, and the node that the memory would form by itself. They are the
    /// same unless firmware describes two.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there is no memory in the region, or its end is not an address.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias("memory_add_physaddr_to_nid", "phys_to_target_node"))]
    pub fn new(start: PhysAddr, size: ResourceSize) -> Result<Self> {
        let end = size
            .checked_sub(1)
            .and_then(|rest| start.checked_add(rest))
            .ok_or(EINVAL)?;

        // SAFETY: The address need not be that of system memory, here and below.
        let numa_node = unsafe { bindings::memory_add_physaddr_to_nid(start) };
        // SAFETY: As above.
        let target_node = match unsafe { bindings::phys_to_target_node(start) } {
            bindings::NUMA_NO_NODE => numa_node,
            node => node,
        };

        // INVARIANT: `end` was computed without wrapping, from a size that is not zero.
        Ok(Self {
            start,
            end,
            flags: RegionFlags::default(),
            numa_node,
            target_node,
        })
    }

    /// Sets the region's properties; [`read_only`](Self::read_only) is called after it.
    ///
    /// # Context
    ///
    /// Any context.
    #[inline]
    pub fn flags(mut self, flags: impl Into<RegionFlags>) -> Self {
        self.flags = flags.into();
        self
    }

    /// Makes the region read-only for good: the kernel neither writes to the memory nor lets user
    /// space do so.
    ///
    /// # Errors
    ///
    /// [`EOPNOTSUPP`] if the kernel's libnvdimm has no such regions.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "ND_REGION_RDONLY")]
    pub fn read_only(self) -> Result<Self> {
        #[cfg(CONFIG_LIBNVDIMM_RDONLY)]
        return Ok(Self {
            flags: RegionFlags(self.flags.0 | 1 << bindings::ND_REGION_RDONLY),
            ..self
        });
        #[cfg(not(CONFIG_LIBNVDIMM_RDONLY))]
        Err(EOPNOTSUPP)
    }
}

#[kunit_tests(rust_nvdimm_region)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        for (start, size, valid) in [
            (0x1000, 0, false),
            (0x1000, 1, true),
            (u64::MAX, 1, true),
            (u64::MAX, 2, false),
            (u64::MAX - 0xfff, 0x1000, true),
            (0x1000, u64::MAX, false),
            (0, u64::MAX, true),
        ] {
            assert_eq!(RegionDesc::new(start, size).is_ok(), valid);
        }
    }

    #[test]
    fn flags_are_the_bits_of_the_core() {
        let flags = RegionFlag::Pagemap | RegionFlag::Async;

        assert_eq!(usize::from(flags), 0b1001);
        assert_eq!(usize::from(RegionFlags::default()), 0);
    }

    #[test]
    fn read_only_adds_to_the_flags() -> Result {
        let desc = RegionDesc::new(0x1000, 0x1000)?
            .flags(RegionFlag::Async)
            .read_only()?;

        assert_eq!(usize::from(desc.flags), 0b10_1000);
        Ok(())
    }
}
