// SPDX-License-Identifier: GPL-2.0

//! A remote store: each flush takes long, several are in flight, answers come in bursts.
//!
//! Source: none; stores behind Firecracker's interface are served like this. A flush takes one
//! to three times `delay`; answers wait for the next multiple of `delay`, and are given
//! together, and not while the test holds them.
//!
//! Mutant of the driver: a flush acknowledges the callers that have arrived while it was in
//! flight. On other hosts they hardly ever arrive between the write-back and the answer. The
//! model, the KUnit suites and boot/test_crash.py catch it, too.

use super::Personality;
use crate::host::{Host, OK};
use crate::random::Random;
use crate::ring::Request;
use crate::Options;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// A remote store's behaviour.
pub struct Remote {
    begin: Instant,
    random: Mutex<Random>,
    done: Arc<Mutex<Vec<Request>>>,
}

impl Remote {
    /// Begins with nothing in flight.
    pub fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            begin: Instant::now(),
            random: Mutex::new(Random::new(options.number("seed")?.unwrap_or(1))),
            done: Arc::default(),
        })
    }
}

impl Personality for Remote {
    fn finishes_before_reset(&self) -> bool {
        false
    }

    fn kick(&self, host: &Arc<Host>) {
        while let Some(request) = host.take() {
            let (host, done, begin) = (host.clone(), self.done.clone(), self.begin);
            let longer = self.random.lock().unwrap().below(3) as u32;

            thread::spawn(move || {
                thread::sleep(host.delay * longer);
                host.flush();
                done.lock().unwrap().push(request);
                let burst = host.delay.as_nanos().max(1);
                let since = begin.elapsed().as_nanos() % burst;
                thread::sleep(std::time::Duration::from_nanos((burst - since) as u64));
                host.wait_while_held();
                let answered = std::mem::take(&mut *done.lock().unwrap());

                for request in &answered {
                    host.put(request, Some(OK), 4);
                }
                host.notify();
            });
        }
    }
}
