// SPDX-License-Identifier: GPL-2.0

//! A host that breaks the rules of the ring at random, from a seed.
//!
//! Source: none. The guest need not work on it; it must not crash, hang or report a bug.
//! Durability cannot hold, so no image is compared.
//!
//! A step in four is an offence. Not here: a configuration that changes with its interrupt,
//! because the vhost crate has no message for it; the values do change.
//!
//! Mutant of the driver: it asserts the lengths and statuses that a host may use. The KUnit
//! suites, which have the same offences on the fake device, catch it, too.

use super::{Personality, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use crate::host::{Host, OK};
use crate::image::Range;
use crate::random::Random;
use crate::Options;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Reads of the configuration that are answered truly: those of the first probe.
const TRUE_READS: u64 = 64;

/// A hostile behaviour.
pub struct Hostile {
    random: Mutex<Random>,
    reads: AtomicU64,
}

impl Hostile {
    /// Begins the offences of a seed.
    pub fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            random: Mutex::new(Random::new(options.number("seed")?.unwrap_or(1))),
            reads: AtomicU64::new(0),
        })
    }

    fn below(&self, limit: u64) -> u64 {
        self.random.lock().unwrap().below(limit)
    }
}

impl Personality for Hostile {
    fn features(&self) -> u64 {
        VERSION_1 | EVENT_IDX | INDIRECT_DESC
    }

    fn config(&self, range: Range) -> (u64, u64) {
        let (start, size) = (range.start, range.size as u64);

        if self.reads.fetch_add(1, Ordering::SeqCst) < TRUE_READS || self.below(4) != 0 {
            return (start, size);
        }
        (start ^ self.below(1 << 20), size ^ self.below(1 << 20))
    }

    fn kick(&self, host: &Arc<Host>) {
        while let Some(request) = host.take() {
            let offence = self.below(32);
            let number = self.random.lock().unwrap().next();
            let mut other = request.clone();

            host.note(&format!("offence {offence}"));
            match offence {
                0 => other.id = number as u16,
                1 => other.id ^= 1,
                2 => {
                    host.put(&request, Some(OK), number as u32);
                    host.notify();
                    continue;
                }
                3 => {
                    if let Some(ring) = host.ring().as_mut() {
                        ring.jump(number as u16);
                    }
                }
                4 => {
                    for _ in 0..1000 {
                        host.ring().iter().for_each(|ring| ring.interrupt());
                    }
                }
                5 => {
                    host.answer(&request, number as u32);
                    continue;
                }
                6 => host.answer(&request, OK), // and once more
                7 => host.put(&request, None, 4),
                _ => {}
            }
            if offence % 2 == 0 {
                host.flush();
            }
            host.put(&other, Some(OK), 4);
            host.ring().iter().for_each(|ring| ring.interrupt());
        }
        host.rearm();
    }
}
