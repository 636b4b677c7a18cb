// SPDX-License-Identifier: GPL-2.0

//! A rate limiter with a bucket for operations and one for bytes.

use std::thread;
use std::time::{Duration, Instant};

/// After a refusal nothing is asked for so long.
const TIMER: Duration = Duration::from_millis(100);

/// The time in which an empty bucket fills up, in seconds.
const FILLS: f64 = 1.0;

/// A bucket of tokens.
struct Bucket {
    size: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(size: u64) -> Self {
        Self {
            size: size as f64,
            tokens: size as f64,
            filled: Instant::now(),
        }
    }

    /// Takes tokens if there are enough, or more than fit; returns for how long the limiter is
    /// blocked after that.
    fn take(&mut self, tokens: f64) -> Option<Duration> {
        let now = Instant::now();
        let more = self.size * (now - self.filled).as_secs_f64() / FILLS;

        self.tokens = (self.tokens + more).min(self.size);
        self.filled = now;
        if tokens > self.size {
            let debt = tokens - std::mem::take(&mut self.tokens);

            return Some(Duration::from_secs_f64(debt / self.size * FILLS));
        }
        if tokens > self.tokens {
            return None;
        }
        self.tokens -= tokens;
        Some(Duration::ZERO)
    }
}

/// The limiter; without a bucket nothing is limited.
pub struct Limiter {
    ops: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Nothing is taken before.
    blocked: Instant,
}

impl Limiter {
    /// Makes full buckets of so many tokens, which fill up within a second.
    pub fn new(ops: Option<u64>, bytes: Option<u64>) -> Self {
        Self {
            ops: ops.map(Bucket::new),
            bytes: bytes.map(Bucket::new),
            blocked: Instant::now(),
        }
    }

    /// Waits until an operation on so many bytes is allowed.
    pub fn wait(&mut self, bytes: u64) {
        while !self.take(bytes as f64) {}
    }

    fn take(&mut self, bytes: f64) -> bool {
        thread::sleep(self.blocked.saturating_duration_since(Instant::now()));
        let taken = |bucket: &mut Option<Bucket>, tokens| {
            (bucket.as_mut()).map_or(Some(Duration::ZERO), |bucket| bucket.take(tokens))
        };
        let Some(_) = taken(&mut self.ops, 1.0) else {
            self.blocked = Instant::now() + TIMER;
            return false;
        };
        let Some(blocked) = taken(&mut self.bytes, bytes) else {
            if let Some(ops) = &mut self.ops {
                ops.tokens += 1.0;
            }
            self.blocked = Instant::now() + TIMER;
            return false;
        };
        self.blocked = Instant::now() + blocked;
        true
    }
}
