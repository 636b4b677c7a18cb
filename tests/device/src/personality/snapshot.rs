// SPDX-License-Identifier: GPL-2.0

//! A machine that was restored from a snapshot: a flush in flight at that moment is lost, is
//! answered late, or twice.
//!
//! Source: as Firecracker's, whose device state has the ring's indices, and nothing about
//! requests that were taken. Flush `lost` is done and never answered. Flush `late` is not done,
//! and answered when the next one is in the ring, which is not done while the test holds it. Flush
//! `twice` has two answers.
//!
//! Not here: the restore itself, because QEMU's vhost-user-test-device does not migrate.
//!
//! Mutant of the driver: the flush that is sent again has the response of the lost one, so the
//! late answer acknowledges it. The KUnit suites and boot/test_stale_answer.py catch it, too.

use super::Personality;
use crate::host::{Host, OK};
use crate::ring::Request;
use crate::Options;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The behaviour around a snapshot.
pub struct Snapshot {
    lost: Option<u64>,
    late: Option<u64>,
    twice: Option<u64>,
    taken: AtomicU64,
    kept: Mutex<Option<Request>>,
}

impl Snapshot {
    /// Loses and repeats the answers that the command line names.
    pub fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            lost: options.number("lost")?,
            late: options.number("late")?,
            twice: options.number("twice")?,
            taken: AtomicU64::new(0),
            kept: Mutex::new(None),
        })
    }
}

impl Personality for Snapshot {
    fn kick(&self, host: &Arc<Host>) {
        while let Some(request) = host.take() {
            let number = Some(self.taken.fetch_add(1, Ordering::SeqCst) + 1);

            if number == self.late {
                host.note("late");
                *self.kept.lock().unwrap() = Some(request);
                continue;
            }
            if let Some(late) = self.kept.lock().unwrap().take() {
                host.answer(&late, OK);
                host.wait_while_held();
            }
            host.flush();
            if number == self.lost {
                host.note("lost");
                continue;
            }
            host.put(&request, Some(OK), 4);
            if number == self.twice {
                host.note("twice");
                host.put(&request, Some(OK), 4);
            }
            host.notify();
        }
    }
}
