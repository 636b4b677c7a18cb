// SPDX-License-Identifier: GPL-2.0

// How long the flush engine holds a flush back for callers that were just answered. The engine's
// rules R10 to R12 say what it does with that.
//
// Callers that flush again and again fall into two halves: those that were just woken miss the
// flush that leaves at that moment, so each waits for half of the flush before its own. If that
// flush is held back until they are here again, one flush answers all. That costs the callers that
// wait already, so it pays only if the others come back soon.
//
// How soon they come back is measured also while nothing is held back. So there is no probing: a
// load that would not gain does not lose either. What was measured may still be wrong a moment
// later; therefore a wait in vain is followed by 2, 4, 8 ... 64 flushes that leave at once.
//
// Like the engine, this needs `core` alone. Times are in nanoseconds, from any fixed beginning.

/// A wait below this is not worth a timer.
pub const SHORTEST: u64 = 20_000;

/// No flush is held back longer: that is two to three time slices of a busy processor, and a caller
/// that is away for longer does other work.
pub const LONGEST: u64 = 10_000_000;

/// After a wait in vain the next `1 << n` flushes leave at once, `n` being the number of such waits
/// in a row, and at most this.
const MOST_MISSES: u32 = 6;

/// Decides how long the engine gathers. A model of the engine has one that always gathers.
pub trait Policy: Default {
    /// A flush is sent. The time is given if there is more than one caller.
    fn sent(&mut self, now: Option<u64>);

    /// A flush for `answered` callers was answered, and so many are `waiting` for the next one.
    /// Returns for how long that may be held back.
    fn answered(&mut self, now: u64, answered: usize, waiting: usize) -> u64;

    /// So many callers are here, those in flight included. `now` reads the clock.
    fn present(&mut self, callers: usize, now: impl FnOnce() -> u64);

    /// The flush that was held back leaves, for so many callers.
    fn gathered(&mut self, now: u64, callers: usize);

    /// Ends the measurements that have begun: gathering is switched on or off.
    fn forget(&mut self);
}

/// What the policy has learned, and what it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learned {
    /// When the flush in flight was sent.
    sent: Option<u64>,
    /// When the last flush was answered, and how many callers waited then.
    since: u64,
    waiting: usize,
    /// At this number of callers most of them are back, and it is measured how long that took.
    quorum: Option<usize>,
    /// The mean service time of the host; 0 before it was measured.
    pub mean: u64,
    /// The service time of its last flush.
    last: u64,
    /// The mean time until most callers are back.
    back: Option<u64>,
    /// Waits in vain since one that paid.
    misses: u32,
    /// How many flushes are still to leave at once.
    skip: u32,
    /// Flushes that were held back.
    pub gathered: u64,
    /// Those of them for which it did not pay.
    pub in_vain: u64,
}

/// Moves `mean` towards `sample` by one part in `1 << shift`.
fn smooth(mean: u64, sample: u64, shift: u32) -> u64 {
    mean - (mean >> shift) + (sample >> shift)
}

impl Learned {
    /// Returns how long the next flush takes, probably. A host may become faster suddenly.
    fn expected(&self) -> u64 {
        self.mean.min(self.last)
    }

    /// Returns the longest time for which a flush may be held back now.
    pub fn limit(&self) -> u64 {
        (self.expected() / 2).min(LONGEST)
    }

    /// Returns whether a wait of `time` helps the callers for which it was more than it costs the
    /// others: without it each of `returning` waits for what is left of the flush before its own.
    fn pays(&self, time: u64, returning: usize, waiting: usize) -> bool {
        let gain = self.expected().saturating_sub(time);

        (returning as u64).saturating_mul(gain) > (waiting as u64).saturating_mul(time)
    }

    fn learn_back(&mut self, took: u64) {
        self.quorum = None;
        if self.mean == 0 {
            return;
        }
        // Callers that were away for long must not be remembered for long.
        let took = took.min(2 * self.mean);

        self.back = Some(self.back.map_or(took, |back| smooth(back, took, 2)));
    }

    fn learn_service(&mut self, took: u64) {
        self.last = took;
        self.mean = if self.mean == 0 {
            took
        } else {
            smooth(self.mean, took, 3)
        };
    }
}

impl Policy for Learned {
    fn sent(&mut self, now: Option<u64>) {
        self.sent = now;
    }

    fn answered(&mut self, now: u64, answered: usize, waiting: usize) -> u64 {
        if let Some(sent) = self.sent.take() {
            self.learn_service(now.saturating_sub(sent));
        }
        // They are not back yet: it takes longer than this.
        if self.quorum.is_some() {
            self.learn_back(now.saturating_sub(self.since));
        }
        self.since = now;
        self.waiting = waiting;
        // A few that do other work now do not count.
        self.quorum = (answered > 0).then_some(waiting + answered - answered / 8);

        if self.skip > 0 {
            self.skip -= 1;
            return 0;
        }
        let limit = self.limit();
        let back = self.back.unwrap_or(u64::MAX);

        if limit < SHORTEST || back >= limit || !self.pays(back, answered, waiting) {
            return 0;
        }
        // The last of them come later.
        limit.min(4 * back + SHORTEST)
    }

    fn present(&mut self, callers: usize, now: impl FnOnce() -> u64) {
        if self.quorum.is_some_and(|quorum| callers >= quorum) {
            self.learn_back(now().saturating_sub(self.since));
        }
    }

    fn gathered(&mut self, now: u64, callers: usize) {
        // Without the wait the flush would have left with the first caller.
        let waiting = self.waiting.max(1);

        self.gathered += 1;
        if self.pays(
            now.saturating_sub(self.since),
            callers.saturating_sub(waiting),
            waiting,
        ) {
            self.misses = 0;
        } else {
            self.in_vain += 1;
            self.misses = (self.misses + 1).min(MOST_MISSES);
            self.skip = 1 << self.misses;
        }
    }

    fn forget(&mut self) {
        self.sent = None;
        self.quorum = None;
    }
}
