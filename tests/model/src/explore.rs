// SPDX-License-Identifier: GPL-2.0

//! Visits all states of a world.

use crate::{
    Event,
    Setup,
    UnderTest,
    Violation,
    World, //
};
use std::{
    collections::{
        HashSet,
        VecDeque, //
    },
    fmt,
    hash::{
        BuildHasherDefault,
        Hash,
        Hasher, //
    },
    time::{
        Duration,
        Instant, //
    },
};

/// The events alone do not make so many states: in the engine or the model something grows.
const LIMIT: usize = 20_000_000;

/// The result of an exploration.
#[derive(Clone, Copy, Debug)]
pub struct Explored {
    /// Different states, distinguished by a hash of 64 bits.
    pub states: usize,
    /// Events applied to them.
    pub steps: usize,
    /// Events that lead to the states farthest from the start.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            steps,
            depth,
            time,
        } = self;
        write!(
            f,
            "all {states} states, {steps} steps, depth {depth}, {:.1} s",
            time.as_secs_f32()
        )
    }
}

/// Visits every state that is reachable from before probe by the events that `allowed` accepts,
/// with no more than `most` callers at a time.
///
/// The search is breadth first, so the events returned on failure are the fewest that lead there.
pub fn explore<F: UnderTest>(
    setup: Setup,
    most: usize,
    allowed: impl Fn(Event) -> bool,
) -> Result<Explored, (Vec<Event>, Violation)> {
    let began = Instant::now();
    let start = World::<F>::new(setup);
    let mut known = Fingerprints::default();
    known.insert(fingerprint(&start));
    // From which state and by which event each state was reached.
    let mut origins: Vec<Option<(u32, Event)>> = vec![None];
    let mut helped: [Fingerprints; 4] = Default::default();
    let mut queue = VecDeque::from([(start, 0, 0)]);
    let mut steps = 0;
    let mut deepest = 0;

    while let Some((world, number, depth)) = queue.pop_front() {
        deepest = depth;
        for (way, helped) in helped.iter_mut().enumerate() {
            let mut path = vec![];
            let is_known = |world: &World<F>| {
                let print = fingerprint(world);
                path.push(print);
                helped.contains(&print)
            };
            world
                .check_progress(way & 1 != 0, way & 2 != 0, is_known)
                .map_err(|(end, violation)| {
                    let mut trace = trace(&origins, number);
                    trace.extend(end);
                    (trace, violation)
                })?;
            helped.extend(path);
        }
        assert!(known.len() < LIMIT, "too many states");
        for event in world.events(most) {
            if !allowed(event) {
                continue;
            }
            steps += 1;
            let mut next = world.clone();
            if let Err(violation) = next.step(event) {
                let mut trace = trace(&origins, number);
                trace.push(event);
                return Err((trace, violation));
            }
            if known.insert(fingerprint(&next)) {
                queue.push_back((next, origins.len() as u32, depth + 1));
                origins.push(Some((number, event)));
            }
        }
    }
    Ok(Explored {
        states: known.len(),
        steps,
        depth: deepest,
        time: began.elapsed(),
    })
}

type Fingerprints = HashSet<u64, BuildHasherDefault<Mixer>>;

fn fingerprint(state: &impl Hash) -> u64 {
    let mut mixer = Mixer::default();
    state.hash(&mut mixer);
    mixer.finish()
}

/// A fast hash: most of the time would be spent in the standard library's, which resists attacks.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (mixed ^ mixed >> 64) as u64 ^ self.0.rotate_left(29);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The events that lead to the state `number`.
fn trace(origins: &[Option<(u32, Event)>], mut number: u32) -> Vec<Event> {
    let mut events = vec![];
    while let Some((from, event)) = origins[number as usize] {
        events.push(event);
        number = from;
    }
    events.reverse();
    events
}
