// SPDX-License-Identifier: GPL-2.0

//! Behaviours of hosts, each after the code that its file names.

mod cloud_hypervisor;
mod crosvm;
mod firecracker;
mod hostile;
mod openvmm;
mod qemu;
mod remote;
mod snapshot;

use crate::host::{Host, FLUSH, OK};
use crate::image::Range;
use crate::Options;
use std::error::Error;
use std::sync::Arc;

pub const INDIRECT_DESC: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
pub const ACCESS_PLATFORM: u64 = 1 << 33;
pub const RING_PACKED: u64 = 1 << 34;

/// How a host offers the device, and serves its queue.
pub trait Personality: Send + Sync {
    /// The features that it offers.
    fn features(&self) -> u64 {
        VERSION_1
    }

    /// Its configuration space: start and size.
    fn config(&self, range: Range) -> (u64, u64) {
        (range.start, range.size as u64)
    }

    /// Whether the range is shared memory region 0.
    fn has_region(&self) -> bool {
        false
    }

    /// Whether a reset of the device waits for the flush that is being served.
    fn finishes_before_reset(&self) -> bool {
        true
    }

    /// Whether a store to a read-only file ends the machine.
    fn ends_at_stores(&self) -> bool {
        false
    }

    /// The driver has kicked.
    fn kick(&self, host: &Arc<Host>);
}

/// Returns the personality of a name.
pub fn named(name: &str, options: &Options) -> Result<Box<dyn Personality>, Box<dyn Error>> {
    Ok(match name {
        "qemu" => Box::new(qemu::Qemu::new(options)?),
        "firecracker" => Box::new(firecracker::Firecracker::new(options)?),
        "cloud-hypervisor" => Box::new(cloud_hypervisor::CloudHypervisor),
        "crosvm" => Box::new(crosvm::Crosvm),
        "openvmm" => Box::new(openvmm::OpenVmm),
        "remote" => Box::new(remote::Remote::new(options)?),
        "snapshot" => Box::new(snapshot::Snapshot::new(options)?),
        "hostile" => Box::new(hostile::Hostile::new(options)?),
        _ => return Err(format!("personality={name}: unknown").into()),
    })
}

/// The status of a failed or unknown request.
const FAILED: u32 = 1;

/// Serves one request after the other, with an interrupt for each.
fn serve_each(host: &Arc<Host>) {
    loop {
        while let Some(request) = host.take() {
            if request.kind == Some(FLUSH) {
                host.flush();
                host.answer(&request, OK);
            } else {
                host.note("malformed");
                host.answer(&request, FAILED);
            }
        }
        if !host.rearm() {
            return;
        }
    }
}
