// SPDX-License-Identifier: GPL-2.0

//! Locks, condition variables and RCU.

use super::prelude::*;
use core::ops::{
    Deref,
    DerefMut, //
};
use loom::sync::{
    Condvar,
    Mutex,
    MutexGuard, //
};

pub use std::sync::Arc;

pub mod aref {
    pub struct ARef<T>(pub std::sync::Arc<T>);

    impl<T> Clone for ARef<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> core::ops::Deref for ARef<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}

/// Values that do not change here.
pub mod atomic {
    pub struct Relaxed;

    pub struct Atomic<T>(T);

    impl<T: Copy> Atomic<T> {
        pub fn new(value: T) -> Self {
            Self(value)
        }

        pub fn load(&self, _: Relaxed) -> T {
            self.0
        }
    }
}

pub struct SpinLockIrq<T>(Mutex<T>);

impl<T> SpinLockIrq<T> {
    pub fn new(value: T) -> Result<Self> {
        Ok(Self(Mutex::new(value)))
    }

    pub fn lock(&self) -> Guard<'_, T> {
        Guard(Some(self.0.lock().unwrap()))
    }
}

pub struct Guard<'a, T>(Option<MutexGuard<'a, T>>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap()
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap()
    }
}

pub struct CondVar(Condvar);

impl CondVar {
    pub fn new() -> Result<Self> {
        Ok(Self(Condvar::new()))
    }

    pub fn wait<T>(&self, guard: &mut Guard<'_, T>) {
        let inner = guard.0.take().unwrap();

        guard.0 = Some(self.0.wait(inner).unwrap());
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

pub mod rcu {
    use loom::sync::{
        Condvar,
        Mutex, //
    };

    loom::lazy_static! {
        static ref READERS: Mutex<usize> = Mutex::new(0);
        static ref NONE: Condvar = Condvar::new();
    }

    pub struct Guard;

    pub fn read_lock() -> Guard {
        *READERS.lock().unwrap() += 1;
        Guard
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let mut readers = READERS.lock().unwrap();

            *readers -= 1;
            if *readers == 0 {
                NONE.notify_all();
            }
        }
    }

    /// Waits for the readers, also for those that come meanwhile.
    pub fn synchronize() {
        let mut readers = READERS.lock().unwrap();

        while *readers > 0 {
            readers = NONE.wait(readers).unwrap();
        }
    }
}
