// SPDX-License-Identifier: GPL-2.0

//! The parts of the driver that do not take part.

pub fn gathers() -> bool {
    false
}

pub fn resend_after() -> u32 {
    0
}

pub fn timeout_secs() -> u32 {
    600
}

pub mod stats {
    #[derive(Clone, Copy, Default)]
    pub struct Stats {
        pub callers: u64,
        pub flushes: u64,
        pub errors: u64,
        pub lost: u64,
        pub recoveries: u64,
        pub gathered: (u64, u64),
        pub mean_service: u64,
    }

    impl Stats {
        pub fn sent(&mut self, _: usize) {
            self.flushes += 1;
        }

        pub fn answered<T>(&mut self, _: T) {}
    }
}

pub mod trace {
    pub fn arrive<T>(_: &T, _: u64, _: bool) {}
    pub fn gather<T>(_: &T, _: u64, _: usize, _: usize) {}
    pub fn send<T>(_: &T, _: u64, _: usize) {}
    pub fn answer<T>(_: &T, _: u64, _: u32, _: u32) {}
    pub fn complete<T, R>(_: &T, _: u64, _: usize, _: R) {}
}

pub mod watchdog {
    #[derive(Clone, Copy)]
    pub struct Subject;

    impl Subject {
        pub fn name(self) -> &'static str {
            "removal"
        }
    }

    pub struct Expiry;

    pub enum Verdict {
        Fine,
        Slow(Subject, u32, u32),
        GiveUp,
    }

    #[derive(Default)]
    pub struct Watch;

    impl Watch {
        pub fn new(_: Subject, _: Expiry, _: u64) -> Self {
            Self
        }

        pub fn check(&mut self, _: bool, _: u64, _: u32) -> Verdict {
            Verdict::Fine
        }

        pub fn has_expired(&self) -> bool {
            false
        }
    }
}
