// SPDX-License-Identifier: GPL-2.0

//! A world for the flush engine: callers, a driver, a virtqueue and a host, all simulated.
//!
//! The engine is the driver's own file, not a copy, and with it the loop that empties the ring.
//! [`ModelPort`] is its port to a simulated ring, split or packed, with and without EVENT_IDX, with
//! and without mappings. Around it, [`World`] does what the real driver, the virtio core and QEMU
//! do, one [`Event`] at a time, and records what the engine cannot: which callers a host flush
//! covered. After each event it checks the rules; a violation is reported with the events that led
//! to it.
//!
//! | test file | what it does |
//! | --- | --- |
//! | `tests/exhaustive.rs` | visits every state that is reachable with a few callers |
//! | `tests/random.rs` | long runs with many callers, shrunk when they fail |
//! | `tests/cases.rs` | single sequences of events |
//! | `tests/calls.rs` | what the engine asks of its policy, its port and the driver's timer |
//! | `tests/policy.rs` | what the policy of gathering learns and decides |
//! | `tests/regret.rs` | what gathering costs and gains on simulated loads |
//! | `tests/mutants.rs` | engines with a fault, each of which must be found: they test the rules |
//!
//! # The rules
//!
//! R1 to R15 are the rules at the head of the engine's file that each of these checks.
//!
//! - *durability* (R1, R3 to R5): a caller that succeeds is covered by a host flush that was made
//!   available after the caller arrived and that the host finished without an error.
//! - *coalescing* (R2): one flush at most is in flight; at most one is sent between a caller's
//!   arrival and its end, unless a reset lost it; none is sent without a caller.
//! - *once*: each caller that was taken ends exactly once.
//! - *order*: bios end in order of arrival.
//! - *errors*: a caller fails if the host failed its flush, or if the device is broken for a
//!   reason. So no caller fails because of a freeze, a reset or a recovery, unless the flush was
//!   lost behind a mapping (R7). A caller does not succeed if its flush's error was reported to the
//!   driver.
//! - *broken*: all callers end when the engine breaks; nothing is acknowledged after that.
//! - *progress* (R5, R6, R8, R9): from each state a host that answers brings all callers to an end,
//!   and the engine to rest.
//! - *count* (R5): the engine is idle only if no caller is left, and quiet only if no answer is to
//!   come.
//! - *memory* (R4, R7): the host writes neither to a request that was freed, nor to one that was
//!   unmapped.
//! - *gathering* (R10 to R12): a flush that could be sent is held back only if more than one caller
//!   was there when the last one succeeded, only while fewer wait, and only if a timer ends that in
//!   time; never after an error, a reset or a freeze, during a removal, or if it is switched off.
//! - *patience* (R14): a flush is sent again only if it was waited for long enough. If the host has
//!   lost it, that is what *progress* takes.
//! - *queue*: the driver neither sends without a queue or a request, nor takes an element without a
//!   descriptor.
//!
//! # How to add a case
//!
//! In `tests/cases.rs`, name the events; [`World::play()`] applies them in turn and checks the
//! rules after each:
//!
//! ```
//! use flush_model::{Event::*, How::*, Kind::*, Real, Setup, World};
//!
//! let mut world = World::<Real>::probed(Setup::default());
//! world.play(&[Arrive(Sync), Arrive(Bio), Answer(0, Done), Interrupt]).unwrap();
//! assert_eq!(world.ended(), (1, 0)); // The second caller waits for the next flush.
//! world.play(&[Answer(0, Done), Interrupt, Work]).unwrap();
//! assert_eq!(world.ended(), (2, 0));
//! ```
//!
//! A new event is a variant of [`Event`], a line in `World::events()` with the condition under
//! which it can happen, and an arm in `World::step()` that does what the driver or the host would
//! do.

#[path = "../../../drivers/nvdimm/virtio_pmem_rust/engine.rs"]
#[allow(missing_docs)]
pub mod engine;

#[path = "../../../drivers/nvdimm/virtio_pmem_rust/gather.rs"]
#[allow(missing_docs)]
pub mod gather;

mod callers;
mod explore;
mod host;
mod port;
mod under_test;
mod world;

pub use callers::{
    Kind,
    List, //
};
pub use explore::{
    explore,
    Explored, //
};
pub use host::{
    How,
    Setup, //
};
pub use port::ModelPort;
pub use under_test::{
    Always,
    Real,
    UnderTest,
    GIVEN_UP,
    LIMIT, //
};
pub use world::{
    Event,
    World, //
};

/// A rule that does not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which of those at the top of this crate.
    pub rule: &'static str,
    /// What was found.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Fails with a [`Violation`] of `rule`.
fn violated<T>(rule: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation {
        rule,
        what: what.into(),
    })
}
