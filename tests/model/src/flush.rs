// SPDX-License-Identifier: GPL-2.0

//! What the world needs of an engine, so that a faulty one can take its place.

use crate::{
    callers::List,
    desk::Desk,
    engine::{
        Engine,
        Join,
        Refused,
        Used, //
    }, //
};
use std::{
    fmt::Debug,
    hash::Hash, //
};

/// The engine under test.
pub type Real = Engine<List>;

/// An engine: the real one, or one around it with a fault. Each function does what the real
/// engine's does, unless it is overridden.
#[allow(missing_docs)]
pub trait Flush: Clone + Debug + Default + Eq + Hash {
    /// Whether to look for what does no harm by itself: a flush too many, an answer that is not
    /// awaited. Where that would only come before the point that is to be made, it is not.
    const STRICT: bool = true;

    fn real(&self) -> &Real;
    fn real_mut(&mut self) -> &mut Real;

    fn start(&mut self, desk: &mut Desk) {
        self.real_mut().start(desk.host.setup.responses(), desk)
    }
    fn arrive(&mut self, caller: u8) -> Result<(), Refused> {
        self.real_mut().arrive(caller).map_err(|(why, back)| {
            assert_eq!(back, caller);
            why
        })
    }
    fn pump(&mut self, desk: &mut Desk) {
        self.real_mut().pump(desk)
    }
    fn drain(&mut self, desk: &mut Desk) {
        self.real_mut().drain(desk)
    }
    fn reset(&mut self, unread: Option<Used>, desk: &mut Desk) {
        self.real_mut().reset(unread, desk)
    }
    fn has_lost(&self) -> bool {
        self.real().has_lost()
    }
    fn recover(&mut self, desk: &mut Desk) -> bool {
        self.real_mut().recover(desk)
    }
    fn fail(&mut self, desk: &mut Desk) {
        self.real_mut().fail(GIVEN_UP, desk)
    }
}

/// Why the driver gives up by itself.
pub const GIVEN_UP: &str = "the driver gives up";

impl Flush for Real {
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
