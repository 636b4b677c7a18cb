// SPDX-License-Identifier: GPL-2.0

//! Every state the engine can get into with a few callers, in any number of steps.
//!
//! All events together are too many for more than one caller, so each test leaves some out.
//! `MOST=4 cargo test --test exhaustive` lets more callers in, and takes its time.

use flush_model::{
    explore,
    Event::{
        self,
        *, //
    },
    How,
    Real, //
};

/// Explores the world with that many callers and the events of a day and those `also` allowed.
fn explore_all(name: &str, most: usize, also: impl Fn(Event) -> bool) {
    let most = std::env::var("MOST").map_or(most, |most| most.parse().expect("MOST is a number"));
    let allowed = |event| match event {
        Arrive(_) | Answer(_, How::Done | How::Error) | Interrupt | Work | Restore => true,
        _ => also(event),
    };
    match explore::<Real>(most, allowed) {
        Ok(explored) => println!("{name}, {most} at a time: {explored}"),
        Err((story, violation)) => panic!("{violation}, after {story:?}"),
    }
}

#[test]
fn traffic() {
    explore_all("traffic", 4, |event| {
        matches!(event, Answer(_, How::Empty) | NoMemory | Memory | Retry)
    });
}

#[test]
fn suspend() {
    explore_all("suspend", 4, |event| {
        matches!(event, Freeze | Frozen | Thaw | NoMemory | Memory | Retry)
    });
}

#[test]
fn function_reset() {
    explore_all("function reset", 2, |event| {
        matches!(event, ForcedReset(_) | Recover(_))
    });
}

#[test]
fn recovery() {
    explore_all("recovery", 2, |event| {
        matches!(event, NeedsReset | Recover(_))
    });
}

#[test]
fn removal() {
    explore_all("removal", 3, |event| {
        matches!(
            event,
            Freeze | Frozen | GiveUp | Close | Removed | RemovedByForce | Rebind | Recover(_)
        )
    });
}

#[test]
fn surprise() {
    explore_all("surprise", 2, |event| {
        matches!(
            event,
            Vanish | GiveUp | NeedsReset | Recover(_) | ForcedReset(_)
        )
    });
}

#[test]
fn bad_host() {
    explore_all("bad host", 2, |event| {
        matches!(event, Answer(..) | ForcedReset(_) | Recover(_) | GiveUp)
    });
}

#[test]
fn everything() {
    explore_all("everything", 1, |event| {
        !matches!(event, Answer(_, How::Lie) | NoMemory)
    });
}
