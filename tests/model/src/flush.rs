// SPDX-License-Identifier: GPL-2.0

//! What the world needs of an engine, so that a faulty one can take its place.

use crate::{
    callers::List,
    engine::{
        Answer,
        Answered,
        Engine,
        Join,
        NotSent,
        Pumped,
        Recovery,
        Refused, //
    }, //
};
use std::{
    fmt::Debug,
    hash::Hash, //
};

/// How many response buffers the simulated driver has: few, so that it can run out of them.
pub const BUFFERS: usize = 2;

/// The engine under test.
pub type Real = Engine<List, BUFFERS>;

/// An engine: the real one, or one around it with a fault. Every function does what the real
/// engine's does, unless it is overridden.
#[allow(missing_docs)]
pub trait Flush: Clone + Debug + Default + Eq + Hash {
    /// Whether to look for what harms nobody by itself: a flush too many, an answer that is not
    /// awaited. Where that would only come before the point that is to be made, it is not.
    const STRICT: bool = true;

    fn real(&self) -> &Real;
    fn real_mut(&mut self) -> &mut Real;

    fn start(&mut self) {
        self.real_mut().start()
    }
    fn arrive(&mut self, caller: u8) -> Result<(), Refused> {
        self.real_mut().arrive(caller).map_err(|(why, back)| {
            assert_eq!(back, caller);
            why
        })
    }
    fn pump(&mut self, add: &mut dyn FnMut(usize) -> Result<(), NotSent>) -> Pumped<List> {
        self.real_mut().pump(add)
    }
    fn answered(&mut self, answer: Answer) -> Answered<List> {
        self.real_mut().answered(answer)
    }
    fn stray(&mut self) -> Answered<List> {
        self.real_mut().stray()
    }
    fn reset(&mut self, is_written: &dyn Fn(usize) -> bool) {
        self.real_mut().reset(is_written)
    }
    fn recover(&mut self) -> Recovery<List> {
        self.real_mut().recover()
    }
    fn break_down(&mut self) -> List {
        self.real_mut().break_down()
    }
}

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
