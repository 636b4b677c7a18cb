// SPDX-License-Identifier: GPL-2.0

//! Firecracker: one msync of the whole file for all requests that wait, and a rate limiter.
//!
//! Source: firecracker-microvm/firecracker, src/vmm/src/devices/virtio/pmem/device.rs at
//! 005dcaa346d5f79668798d685d81e373a6102df8.
//!
//! The device is on MMIO or PCI, offers VERSION_1 alone, and has a queue of 256. The result of
//! the first valid request is that of all; one interrupt follows. A malformed request comes
//! back with a used length of 0, its status unwritten; a status of more than 4 bytes is
//! malformed, too. The rate limiter (`ops=` a second) is asked before the queue is looked at; a
//! blocked one is asked again by a timer of 100 ms. (The file's size, which it also counts, has
//! the same effect.)
//!
//! Not here: a store to a read-only backing ends the virtual machine (KVM_MEM_READONLY), and
//! nothing of that passes through a virtqueue; failed resets, because QEMU resets the device.
//!
//! Mutant of the driver: a response of 8 bytes (`Command<Le32, Le64>`); other hosts take a
//! status with more room.

use super::Personality;
use crate::host::{Host, FLUSH, OK};
use crate::Options;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const TIMER: Duration = Duration::from_millis(100);

/// A bucket of operations that fills up within a second.
struct Bucket {
    size: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let more = self.size * (now - self.filled).as_secs_f64();

        self.tokens = (self.tokens + more).min(self.size);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// Firecracker's behaviour.
pub struct Firecracker {
    limiter: Option<Mutex<Bucket>>,
}

impl Firecracker {
    /// Makes a device, with `ops` behind a rate limiter.
    pub fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        let limiter = options.number("ops")?.map(|ops| {
            Mutex::new(Bucket {
                size: ops as f64,
                tokens: ops as f64,
                filled: Instant::now(),
            })
        });
        Ok(Self { limiter })
    }
}

impl Personality for Firecracker {
    fn kick(&self, host: &Arc<Host>) {
        if let Some(limiter) = &self.limiter {
            while !limiter.lock().unwrap().take() {
                thread::sleep(TIMER);
            }
        }
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
