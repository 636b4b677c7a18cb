// SPDX-License-Identifier: GPL-2.0

//! Firecracker: one msync of the whole file for all requests that wait, and a rate limiter.
//!
//! Source: firecracker-microvm/firecracker, src/vmm/src/devices/virtio/pmem/device.rs and
//! src/vmm/src/rate_limiter/mod.rs at 81b38b9dad6056d7a48073e95ac5a9aed51cb2ab.
//!
//! The device is on MMIO or PCI, offers VERSION_1 alone, and has a queue of 256. The result of
//! the first valid request is that of all; one interrupt follows. A malformed request comes
//! back with a used length of 0, its status unwritten; a status of more than 4 bytes is
//! malformed, too.
//!
//! The rate limiter is asked before a queue that has a request is looked at: for an operation
//! (`ops=` a second), and for the size of the file (`bytes=` a second). If a bucket has too
//! little, all waits for a timer of 100 ms. A file that is larger than its bucket is flushed, and
//! the next flush waits until the bucket would have filled up for the rest.
//!
//! A store to a read-only backing (`read_only=1`) ends the virtual machine, or is discarded
//! (KVM_MEM_READONLY). Here the queue is served no more from the first flush that finds a store.
//!
//! Not here: the end of the machine at the store itself, which does not pass through a virtqueue;
//! failed resets, because QEMU resets the device.
//!
//! Mutant of the driver: a response of 8 bytes (`Command<Le32, Le64>`); other hosts take a
//! status with more room.

use super::Personality;
use crate::host::{Host, FLUSH, OK};
use crate::limiter::Limiter;
use crate::Options;
use std::error::Error;
use std::sync::{Arc, Mutex};

/// Firecracker's behaviour.
pub struct Firecracker {
    limiter: Mutex<Limiter>,
}

impl Firecracker {
    /// Makes a device behind a rate limiter.
    pub fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            limiter: Mutex::new(Limiter::new(
                options.number("ops")?,
                options.number("bytes")?,
            )),
        })
    }
}

impl Personality for Firecracker {
    fn ends_at_stores(&self) -> bool {
        true
    }

    fn kick(&self, host: &Arc<Host>) {
        if !host.has_request() {
            return;
        }
        self.limiter.lock().unwrap().wait(host.size as u64);
        let mut flushed = false;

        while let Some(request) = host.take() {
            if request.kind != Some(FLUSH) || request.status.is_none() || request.room != 4 {
                host.note("malformed");
                host.put(&request, None, 0);
                continue;
            }
            if !flushed {
                host.flush();
                flushed = true;
            }
            host.put(&request, Some(OK), 4);
        }
        host.notify();
    }
}
