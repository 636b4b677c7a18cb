// SPDX-License-Identifier: GPL-2.0

//! Every state that the engine can reach with a few callers, in any number of steps.
//!
//! All events together are too many for more than one caller, so each test leaves some out.
//! `MOST=4 cargo test --test exhaustive` allows more callers, and takes longer.

use flush_model::{
    explore,
    Event::{
        self,
        *, //
    },
    How,
    Real,
    Setup, //
};

/// Explores the world with that many callers, the events of normal service and those that `also`
/// accepts, on each kind of ring.
fn explore_all(name: &str, mapped: bool, most: usize, also: impl Fn(Event) -> bool) {
    explore_each(name, Setup::rings(mapped), most, also);
}

/// The same with gathering, on hosts that interrupt no more than they must.
fn explore_gathering(name: &str, mapped: bool, most: usize, also: impl Fn(Event) -> bool) {
    let setups = Setup::rings(mapped).filter(|setup| setup.event_idx);
    let setups = setups.map(|setup| Setup {
        gathers: true,
        ..setup
    });
    explore_each(name, setups, most, |event| {
        matches!(event, Tick | Wake) || also(event)
    });
}

fn explore_each(
    name: &str,
    setups: impl Iterator<Item = Setup>,
    most: usize,
    also: impl Fn(Event) -> bool,
) {
    let most = std::env::var("MOST").map_or(most, |most| most.parse().expect("MOST is a number"));
    let allowed = |event| match event {
        Arrive(_) | Answer(_, How::Done | How::Error) | Interrupt | Work | Restore => true,
        _ => also(event),
    };
    for setup in setups {
        match explore::<Real>(setup, most, allowed) {
            Ok(explored) => println!("{name}, {setup}, {most} at a time: {explored}"),
            Err((trace, violation)) => panic!("{setup}: {violation}, after {trace:?}"),
        }
    }
}

#[test]
fn traffic() {
    explore_all("traffic", false, 4, |event| {
        matches!(event, Answer(_, How::Empty) | NoMemory | Memory)
    });
}

#[test]
fn suspend() {
    explore_all("suspend", false, 4, |event| {
        matches!(event, Freeze | Frozen | Thaw | NoMemory | Memory)
    });
}

#[test]
fn function_reset() {
    explore_all("function reset", false, 2, |event| {
        matches!(event, ForcedReset(_) | Recover(_))
    });
}

#[test]
fn recovery() {
    explore_all("recovery", false, 2, |event| {
        matches!(event, NeedsReset | Recover(_))
    });
}

#[test]
fn removal() {
    explore_all("removal", false, 3, |event| {
        matches!(
            event,
            Freeze | Frozen | GiveUp | Close | Removed | RemovedByForce | Rebind | Recover(_)
        )
    });
}

#[test]
fn surprise() {
    explore_all("surprise", false, 2, |event| {
        matches!(
            event,
            Vanish | GiveUp | NeedsReset | Recover(_) | ForcedReset(_)
        )
    });
}

#[test]
fn bad_host() {
    explore_all("bad host", false, 2, |event| {
        matches!(event, Answer(..) | ForcedReset(_) | Recover(_) | GiveUp)
    });
}

#[test]
fn everything() {
    explore_all("everything", false, 1, |event| {
        !matches!(
            event,
            Answer(_, How::Lie) | NoMemory | InterruptMeanwhile(..) | Find
        )
    });
}

#[test]
fn mapped() {
    explore_all("mapped", true, 2, |event| {
        matches!(
            event,
            Freeze | Frozen | ForcedReset(_) | NeedsReset | Recover(_) | GiveUp
        )
    });
}

#[test]
fn mapped_removal() {
    explore_all("mapped removal", true, 2, |event| {
        matches!(
            event,
            Close | Removed | RemovedByForce | Rebind | ForcedReset(_) | NoMemory | Memory
        )
    });
}

/// The host answers while the driver accesses the ring, or before the driver has the queue.
#[test]
fn overlap() {
    explore_all("overlap", false, 2, |event| {
        matches!(
            event,
            InterruptMeanwhile(..) | Find | ForcedReset(true) | Recover(true)
        )
    });
}

#[test]
fn gathering() {
    explore_gathering("traffic", false, 3, |event| matches!(event, Switch(_)));
}

#[test]
fn gathering_without_memory() {
    explore_gathering("memory", false, 2, |event| {
        matches!(event, Switch(_) | Answer(_, How::Empty) | NoMemory | Memory)
    });
}

#[test]
fn gathering_and_suspend() {
    explore_gathering("suspend", false, 3, |event| {
        matches!(event, Freeze | Frozen | Thaw | Switch(_))
    });
}

#[test]
fn gathering_and_resets() {
    explore_gathering("resets", false, 2, |event| {
        matches!(event, ForcedReset(_) | Recover(_) | Switch(_))
    });
}

#[test]
fn gathering_and_recovery() {
    explore_gathering("recovery", false, 2, |event| {
        matches!(event, NeedsReset | Recover(_))
    });
}

#[test]
fn gathering_and_removal() {
    explore_gathering("removal", false, 2, |event| {
        matches!(
            event,
            GiveUp | Vanish | Close | Removed | RemovedByForce | Rebind | Recover(_)
        )
    });
}

#[test]
fn gathering_mapped() {
    explore_gathering("mapped", true, 2, |event| {
        matches!(
            event,
            Freeze | Frozen | ForcedReset(_) | Recover(_) | Close | Removed | NoMemory | Memory
        )
    });
}

/// The host answers while the driver accesses the ring.
#[test]
fn gathering_and_overlap() {
    explore_gathering("overlap", false, 2, |event| {
        matches!(
            event,
            InterruptMeanwhile(..) | ForcedReset(true) | Recover(true)
        )
    });
}

/// The same for one caller with a driver that sends a flush again, on a host that may lose it.
fn explore_patient(name: &str, mapped: bool, also: impl Fn(Event) -> bool) {
    let setups = Setup::rings(mapped).filter(|setup| setup.event_idx);
    let setups = setups.map(|setup| Setup {
        patient: true,
        ..setup
    });
    explore_each(name, setups, 1, |event| {
        matches!(event, Wake | Lose(_) | Recover(_)) || also(event)
    });
}

#[test]
fn lost_answers() {
    explore_patient("lost answers", false, |_| false);
}

#[test]
fn lost_answers_and_suspend() {
    explore_patient("lost, suspend", false, |event| {
        matches!(event, Freeze | Frozen | Thaw | ForcedReset(_))
    });
}

#[test]
fn lost_answers_and_recovery() {
    explore_patient("lost, recovery", false, |event| matches!(event, NeedsReset));
}

#[test]
fn lost_answers_and_removal() {
    explore_patient("lost, removal", false, |event| {
        matches!(event, Close | Removed | RemovedByForce | Rebind)
    });
}

/// R7: behind a mapping no flush is sent again.
#[test]
fn patience_behind_a_mapping() {
    explore_patient("patience, mapped", true, |event| {
        matches!(event, NeedsReset | ForcedReset(_))
    });
}
