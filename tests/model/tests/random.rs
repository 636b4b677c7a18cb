// SPDX-License-Identifier: GPL-2.0

//! Long random runs with many callers. `PROPTEST_CASES=10000 cargo test --test random` for more of
//! them.

use flush_model::{
    gather::{
        Learned,
        Policy,
        LONGEST,
        SHORTEST, //
    },
    Event::{
        self,
        *, //
    },
    How,
    Kind,
    Real,
    Setup,
    Violation,
    World, //
};
use proptest::prelude::*;

/// Any event; frequent ones are chosen more often.
fn any_event() -> impl Strategy<Value = Event> {
    let flush = 0..3_usize;
    let keeps = any::<bool>();
    let some = |events: &'static [Event]| prop::sample::select(events);
    prop_oneof![
        200 => some(&[Arrive(Kind::Sync), Arrive(Kind::Bio), Interrupt, Work]),
        100 => flush.clone().prop_map(|flush| Answer(flush, How::Done)),
        50 => some(&[Restore, Frozen, Rebind, Memory, Wake]),
        20 => keeps.prop_map(Recover),
        5 => flush.clone().prop_map(|flush| Answer(flush, How::Error)),
        20 => some(&[Tick, Wake]),
        5 => some(&[Freeze, Thaw, NoMemory, Switch(true), Switch(false)]),
        2 => flush.clone().prop_map(|flush| Answer(flush, How::Empty)),
        2 => some(&[NeedsReset, ForcedReset(true), ForcedReset(false)]),
        1 => flush.clone().prop_map(|flush| Answer(flush, How::Lie)),
        2 => flush.prop_map(Lose),
        1 => some(&[Vanish, GiveUp, Close, Removed, RemovedByForce]),
    ]
}

/// Applies those of `events` that can happen when their turn comes.
fn run(setup: Setup, events: &[Event]) -> Result<(), Violation> {
    let mut world = World::<Real>::new(setup);
    for (number, &event) in events.iter().enumerate() {
        if !world.events(24).contains(&event) {
            continue;
        }
        world.step(event)?;
        // At some steps, check that all callers would end.
        if number % 16 == 0 {
            for way in 0..4 {
                let progress = world.check_progress(way & 1 != 0, way & 2 != 0, |_| false);
                progress.map_err(|(_, violation)| violation)?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 100_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn long_runs(
        (packed, event_idx, mapped, gathers, waits) in any::<(bool, bool, bool, bool, bool)>(),
        events in prop::collection::vec(any_event(), 1..3000),
    ) {
        // Without patience the clock runs, and with it the clock stands still.
        let patient = waits && !gathers;
        let setup = Setup { packed, event_idx, mapped, gathers, patient };
        run(setup, &events).map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    }

    /// R11, whatever the policy measures.
    #[test]
    fn waits_are_short(
        flushes in prop::collection::vec(
            (0..u64::MAX >> 20, 0..u64::MAX >> 20, 1..1_000_000_usize, 0..1_000_000_usize, 0..44),
            1..1000,
        ),
    ) {
        let mut policy = Learned::default();
        let mut now = 0;
        for (service, back, answered, waiting, shift) in flushes {
            policy.sent(Some(now));
            now += service >> shift;
            let time = policy.answered(now, answered, waiting);
            prop_assert!(time <= policy.mean / 2 && time <= LONGEST);
            prop_assert!(time == 0 || time >= SHORTEST);
            now += back >> shift;
            policy.present(answered, || now);
            if time > 0 {
                policy.gathered(now, answered);
            }
        }
    }
}
