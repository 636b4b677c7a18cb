// SPDX-License-Identifier: GPL-2.0

//! What all personalities share: the image, the journal, the ring, the power.

use crate::image::{Image, Journal};
use crate::ring::{Memory, Request, Ring};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use vm_memory::GuestAddressSpace;

/// The status of a flush that succeeded.
pub const OK: u32 = 0;

/// A request of the type FLUSH.
pub const FLUSH: u32 = 0;

/// The host under one device.
pub struct Host {
    /// By how much a flush takes longer.
    pub delay: Duration,
    sync: Option<File>,
    /// The size of the range.
    pub size: usize,
    pages: Memory,
    ring: Mutex<Option<Ring>>,
    image: Mutex<Image>,
    journal: Mutex<Journal>,
    power: AtomicBool,
    hold: Option<PathBuf>,
}

impl Host {
    /// Makes a host whose device has its range in some memory. Flushes sync a file. Answers wait
    /// while the file `hold` exists, on personalities that hold answers.
    pub fn new(
        delay: Duration,
        hold: Option<PathBuf>,
        sync: Option<File>,
        pages: Memory,
        image: Image,
        journal: Journal,
    ) -> Self {
        Self {
            delay,
            sync,
            size: image.size(),
            pages,
            ring: Mutex::new(None),
            image: Mutex::new(image),
            journal: Mutex::new(journal),
            power: AtomicBool::new(true),
            hold,
        }
    }

    /// Adds a line to the journal.
    pub fn note(&self, text: &str) {
        self.journal.lock().unwrap().note(text);
    }

    /// Copies the image to the device's range.
    pub fn load(&self) {
        self.image.lock().unwrap().load(&self.pages.memory());
    }

    /// Returns the ring in its place.
    pub fn ring(&self) -> MutexGuard<'_, Option<Ring>> {
        self.ring.lock().unwrap()
    }

    /// Returns whether the driver's ring is still served.
    pub fn is_on(&self) -> bool {
        self.power.load(Ordering::SeqCst)
    }

    /// Flushes the range to the image. Returns whether the file was synced, if it is to be.
    pub fn flush(&self) -> bool {
        thread::sleep(self.delay);
        let mut image = self.image.lock().unwrap();

        if self.is_on() && !image.flush(&self.pages.memory(), &mut self.journal.lock().unwrap()) {
            self.power.store(false, Ordering::SeqCst);
        }
        drop(image);
        (self.sync.as_ref()).is_none_or(|file| file.sync_all().is_ok())
    }

    /// Waits while answers are held.
    pub fn wait_while_held(&self) {
        while self.hold.as_ref().is_some_and(|path| path.exists()) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reports stores to a read-only range that no flush has found.
    pub fn finish(&self) {
        let mut image = self.image.lock().unwrap();

        image.find_stores(&self.pages.memory(), &mut self.journal.lock().unwrap());
    }

    /// Returns whether a request can be taken.
    pub fn has_request(&self) -> bool {
        self.is_on() && self.ring().as_mut().is_some_and(Ring::has_request)
    }

    /// Takes the next request.
    pub fn take(&self) -> Option<Request> {
        if !self.is_on() {
            return None;
        }
        self.ring().as_mut()?.take()
    }

    /// Returns whether a request was taken since the ring started.
    pub fn has_taken(&self) -> bool {
        self.ring().as_ref().is_some_and(Ring::has_taken)
    }

    /// Returns a request with its status, and does not interrupt.
    pub fn put(&self, request: &Request, status: Option<u32>, len: u32) {
        if !self.is_on() {
            return;
        }
        if let Some(ring) = self.ring().as_mut().filter(|ring| ring.is_running()) {
            if let Some(status) = status {
                ring.status(request, status);
            }
            ring.put(request, len);
        }
    }

    /// Interrupts the driver if it wants to be.
    pub fn notify(&self) {
        if let Some(ring) = self.ring().as_mut().filter(|ring| ring.is_running()) {
            ring.notify();
        }
    }

    /// Returns a request and interrupts.
    pub fn answer(&self, request: &Request, status: u32) {
        self.put(request, Some(status), 4);
        self.notify();
    }

    /// Asks for further kicks; returns whether requests have arrived meanwhile.
    pub fn rearm(&self) -> bool {
        self.ring().as_mut().is_some_and(Ring::rearm)
    }
}
