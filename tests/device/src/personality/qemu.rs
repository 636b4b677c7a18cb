// SPDX-License-Identifier: GPL-2.0

//! QEMU: a thread pool, which answers in any order.
//!
//! Source: qemu/qemu, hw/virtio/virtio-pmem.c at 06b40d250ecfa1633209c2e431a7a38acfd03a98, and
//! the handler of notifications in hw/virtio/virtio.c.
//!
//! One request is taken for each notification. A notification without a request breaks the
//! device: there, the configuration gets DEVICE_NEEDS_RESET; vhost-user has no message for
//! that, so here the journal gets "empty", and the queue is served no more. Two notifications may
//! reach this program as one, which then has two requests; and QEMU's vhost frontend adds one when
//! the ring starts. So many without a request do not count. A reset does not stop requests in the
//! pool: their answers arrive in the ring that the driver has then. (The device itself, with
//! NEEDS_RESET, is what the other tests in guests run on. QEMU 11.1.3 of Debian ignores a
//! notification without a request.)
//!
//! Mutant of the driver: a notification is sent twice; on other hosts a kick without a request
//! has no effect.

use super::{Personality, EVENT_IDX, FAILED, INDIRECT_DESC, VERSION_1};
use crate::host::{Host, OK};
use crate::random::Random;
use crate::Options;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// QEMU's behaviour.
pub struct Qemu {
    broken: AtomicBool,
    /// How many notifications may still find no request.
    spare: AtomicU64,
    random: Mutex<Random>,
}

impl Qemu {
    /// Begins with a working queue.
    pub fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            broken: AtomicBool::new(false),
            spare: AtomicU64::new(0),
            random: Mutex::new(Random::new(options.number("seed")?.unwrap_or(1))),
        })
    }
}

impl Personality for Qemu {
    fn features(&self) -> u64 {
        VERSION_1 | EVENT_IDX | INDIRECT_DESC
    }

    fn finishes_before_reset(&self) -> bool {
        false
    }

    fn kick(&self, host: &Arc<Host>) {
        if self.broken.load(Ordering::SeqCst) {
            return;
        }
        let mut taken = 0;

        loop {
            let starts = !host.has_taken();
            let Some(request) = host.take() else {
                if taken > 0 && host.rearm() {
                    continue;
                }
                break;
            };
            if starts {
                self.spare.store(1, Ordering::SeqCst);
            }
            if taken > 0 {
                self.spare.fetch_add(1, Ordering::SeqCst);
            }
            taken += 1;
            let (host, pause) = (host.clone(), self.random.lock().unwrap().below(4));
            thread::spawn(move || {
                let status = if host.flush() { OK } else { FAILED };

                thread::sleep(Duration::from_millis(pause));
                host.answer(&request, status);
            });
        }
        if taken > 0 || !host.is_on() || !host.has_taken() {
            return;
        }
        let spare = (self.spare).fetch_update(Ordering::SeqCst, Ordering::SeqCst, |spare| {
            spare.checked_sub(1)
        });
        if spare.is_err() {
            host.note("empty");
            self.broken.store(true, Ordering::SeqCst);
        }
    }
}
