// SPDX-License-Identifier: GPL-2.0

//! The range of the device's memory.

use kernel::{
    device::{
        Bound,
        Core, //
    },
    prelude::*,
    uapi,
    virtio::{
        self,
        Feature,
        Field, //
    }, //
};

/// The range is that of shared memory region 0, not that in the configuration space.
pub(crate) const SHMEM_REGION: Feature = Feature::new::<{ uapi::VIRTIO_PMEM_F_SHMEM_REGION }>();

const START: Field<u64> = virtio::field!(uapi::virtio_pmem_config, start).le();
const SIZE: Field<u64> = virtio::field!(uapi::virtio_pmem_config, size).le();

/// A range of guest physical memory: not empty, of whole pages, and within the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) size: u64,
}

impl Range {
    /// Checks the range that a device reports.
    pub(crate) fn new(start: u64, size: u64) -> Option<Self> {
        let page = kernel::page::PAGE_SIZE as u64;
        let end = start.checked_add(size.checked_sub(1)?)?;

        if start % page != 0 || size % page != 0 || usize::try_from(end).is_err() {
            return None;
        }
        Some(Self { start, size })
    }

    /// Returns the shared memory region's range, if there is one and it is valid. May sleep.
    pub(crate) fn from_shm_region(vdev: &virtio::Device<Bound>) -> Option<Self> {
        let region = vdev.shm_region(uapi::VIRTIO_PMEM_SHMEM_REGION_ID as u8)?;

        Self::new(region.addr, region.len)
    }

    /// Returns the device's range. May sleep.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the device has no valid range, or no room for one in its configuration space.
    pub(crate) fn of(vdev: &virtio::Device<Core<'_>>) -> Result<Self> {
        if vdev.has_feature(SHMEM_REGION) {
            return Self::from_shm_region(vdev).ok_or(EINVAL);
        }

        let config = vdev
            .config()
            .inspect_err(|_| dev_err!(vdev, "no access to the configuration space\n"))?;
        let (start, size) = config
            .consistent(|c| Ok((c.read(START)?, c.read(SIZE)?)))
            .inspect_err(|_| dev_err!(vdev, "the configuration space has no room for a range\n"))?;

        // OpenVMM's device has the region, but does not offer the feature.
        if size == 0 {
            if let Some(range) = Self::from_shm_region(vdev) {
                dev_notice!(
                    vdev,
                    "the configuration space has no range, using shared memory region 0\n"
                );
                return Ok(range);
            }
        }

        Self::new(start, size).ok_or_else(|| {
            dev_err!(
                vdev,
                "invalid range: start {:#x}, size {:#x}\n",
                start,
                size
            );
            EINVAL
        })
    }
}

#[kunit_tests(virtio_pmem_rust_range)]
mod tests {
    use super::*;

    const PAGE: u64 = kernel::page::PAGE_SIZE as u64;

    #[test]
    fn takes_whole_pages() {
        assert_eq!(
            Range::new(4 * PAGE, 2 * PAGE),
            Some(Range {
                start: 4 * PAGE,
                size: 2 * PAGE
            })
        );
        assert!(Range::new(0, PAGE).is_some());
    }

    #[test]
    fn refuses_empty_and_unaligned() {
        assert!(Range::new(PAGE, 0).is_none());
        assert!(Range::new(PAGE, 1).is_none());
        assert!(Range::new(PAGE, PAGE + 512).is_none());
        assert!(Range::new(PAGE + 1, PAGE).is_none());
    }

    #[test]
    fn refuses_ranges_that_wrap() {
        assert!(Range::new(u64::MAX - PAGE + 1, 2 * PAGE).is_none());
        assert!(Range::new(2 * PAGE, u64::MAX - PAGE + 1).is_none());
    }
}
