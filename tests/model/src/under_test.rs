// SPDX-License-Identifier: GPL-2.0

//! The interface of an engine under test, so that a mutant can take the real one's place.

use crate::{
    callers::List,
    engine::{
        Engine,
        Join,
        Refused,
        Timer,
        Used, //
    },
    gather::Policy,
    port::ModelPort, //
};
use std::{
    fmt::Debug,
    hash::Hash, //
};

/// The driver's engine, with a policy that stands for any other.
pub type Real = Engine<List, Always>;

/// Gathers after each flush, as long as it may.
///
/// Nothing is learned, so the number of states stays finite. Another policy does the same after
/// some flushes, which here is done by switching gathering on and off, and for a shorter time,
/// which makes no difference where time passes in steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Always;

/// How many steps of the clock a flush may be held back.
pub const LIMIT: u8 = 2;

impl Policy for Always {
    fn sent(&mut self, _: Option<u64>) {}
    fn answered(&mut self, _: u64, _: usize, _: usize) -> u64 {
        LIMIT.into()
    }
    fn present(&mut self, _: usize, _: impl FnOnce() -> u64) {}
    fn gathered(&mut self, _: u64, _: usize) {}
    fn forget(&mut self) {}
}

/// An engine: the real one, or one around it with a fault. Each function does what the real
/// engine's does, unless it is overridden.
#[allow(missing_docs)]
pub trait UnderTest: Clone + Debug + Default + Eq + Hash {
    /// Whether harmless violations count: a flush too many, an answer that is not waited for.
    /// False for a mutant that would be found by them before the violation that it is about.
    const STRICT: bool = true;

    fn real(&self) -> &Real;
    fn real_mut(&mut self) -> &mut Real;

    fn start(&mut self, port: &mut ModelPort) {
        self.real_mut().start(port.host.setup.responses(), port)
    }
    fn arrive(&mut self, caller: u8) -> Result<(), Refused> {
        self.real_mut().arrive(caller).map_err(|(why, back)| {
            assert_eq!(back, caller);
            why
        })
    }
    fn pump(&mut self, port: &mut ModelPort) {
        self.real_mut().pump(port)
    }
    fn drain(&mut self, port: &mut ModelPort) {
        self.real_mut().drain(port)
    }
    fn reset(&mut self, unread: Option<Used>, port: &mut ModelPort) {
        self.real_mut().reset(unread, port)
    }
    fn wake(&mut self, port: &mut ModelPort) {
        self.real_mut().wake(port)
    }
    fn take_timer(&mut self) -> Option<Timer> {
        self.real_mut().take_timer()
    }
    fn quiesce(&mut self) {
        self.real_mut().quiesce()
    }
    fn close(&mut self) {
        self.real_mut().close()
    }
    fn set_gathering(&mut self, gathers: bool) {
        self.real_mut().set_gathering(gathers)
    }
    fn has_lost(&self) -> bool {
        self.real().has_lost()
    }
    fn recover(&mut self, port: &mut ModelPort) -> bool {
        self.real_mut().recover(port)
    }
    fn fail(&mut self, port: &mut ModelPort) {
        self.real_mut().fail(GIVEN_UP, port)
    }
}

/// Why the driver gives up by itself.
pub const GIVEN_UP: &str = "the driver gives up";

impl UnderTest for Real {
    fn real(&self) -> &Real {
        self
    }
    fn real_mut(&mut self) -> &mut Real {
        self
    }
}

impl Join<u8> for List {
    fn join(&mut self, caller: u8) {
        self.0.push(caller);
    }
}
