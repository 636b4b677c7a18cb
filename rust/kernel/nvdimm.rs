// SPDX-License-Identifier: GPL-2.0

//! Providers of persistent memory.
//!
//! A driver that finds persistent memory registers a [`Bus`] with libnvdimm and creates regions
//! on it. libnvdimm and its own drivers make namespaces and block devices of the regions. Where
//! stores do not become durable by themselves, libnvdimm calls the driver's [`RegionProvider`] to
//! flush.
//!
//! C header: [`include/linux/libnvdimm.h`](srctree/include/linux/libnvdimm.h)

mod bus;
mod provider;
mod region;
#[cfg(CONFIG_KUNIT = "y")]
mod testing;

pub use bus::{
    Bus,
    BusDesc, //
};
pub use provider::{
    pmem_wmb,
    BioOffer,
    BioOutcome,
    RegionProvider, //
};
pub use region::{
    RegionDesc,
    RegionFlag,
    RegionFlags, //
};
