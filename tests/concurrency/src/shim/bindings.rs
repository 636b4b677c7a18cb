// SPDX-License-Identifier: GPL-2.0

//! Completions and bios, as C has them.

use loom::sync::{
    Condvar,
    Mutex, //
};

/// The kernel's: a flag and its waiters, under a lock.
#[allow(non_camel_case_types)]
pub struct completion {
    done: Mutex<bool>,
    wait: Condvar,
}

/// # Safety
///
/// `this` is valid for writing.
pub unsafe fn init_completion(this: *mut completion) {
    unsafe {
        this.write(completion {
            done: Mutex::new(false),
            wait: Condvar::new(),
        });
    }
}

/// # Safety
///
/// `this` is valid.
pub unsafe fn complete(this: *mut completion) {
    let this = unsafe { &*this };
    let mut done = this.done.lock().unwrap();

    *done = true;
    this.wait.notify_one();
}

/// # Safety
///
/// `this` is valid.
pub unsafe fn wait_for_completion(this: *mut completion) {
    let this = unsafe { &*this };
    let mut done = this.done.lock().unwrap();

    while !*done {
        done = this.wait.wait(done).unwrap();
    }
}

/// A bio, and what its submitter checks when it ends.
#[allow(non_camel_case_types)]
pub struct bio {
    pub bi_next: *mut bio,
    pub bi_status: u8,
    pub is_fua: bool,
    pub end: Box<dyn Fn(u8)>,
}
