// SPDX-License-Identifier: GPL-2.0

//! The statistics of a device, as its file in debugfs shows them.

use kernel::{
    fmt,
    prelude::*,
    time::Delta, //
};

/// Bucket N counts latencies below 2^N microseconds; the last one counts all longer ones.
const BUCKETS: usize = 24;

/// Counters of one device. Kept under the lock of the flush path.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stats {
    /// Callers that were taken.
    pub(crate) callers: u64,
    /// Flushes that were sent to the host.
    pub(crate) flushes: u64,
    /// The largest number of callers that one host flush was sent for.
    pub(crate) largest_batch: usize,
    /// The sum of all batches.
    batches: u64,
    /// Flushes that were held back for more callers, and those of them for which that did not pay.
    pub(crate) gathered: (u64, u64),
    /// The mean service time of the host in nanoseconds, measured while it was shared; 0 before.
    pub(crate) mean_service: u64,
    /// Flushes that the host failed.
    pub(crate) errors: u64,
    /// Resets at the device's own request, or because the ring was out of step with the host.
    pub(crate) recoveries: u64,
    /// Flushes that were lost to a reset, or used up by a late answer; their memory was given up.
    pub(crate) lost: u64,
    /// The histogram of the host's answer times.
    latency: [u64; BUCKETS],
}

impl Stats {
    /// Counts a flush that was sent for `callers` callers.
    pub(crate) fn sent(&mut self, callers: usize) {
        self.flushes += 1;
        self.batches += callers as u64;
        self.largest_batch = self.largest_batch.max(callers);
    }

    /// Counts an answer of the host.
    pub(crate) fn answered(&mut self, latency: Delta) {
        let micros = latency.as_micros_ceil().max(0) as u64;
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;

        self.latency[bucket.min(BUCKETS - 1)] += 1;
    }

    /// Writes one counter per line, and the buckets that are not empty.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "callers: {}", self.callers)?;
        writeln!(f, "host_flushes: {}", self.flushes)?;
        writeln!(f, "largest_batch: {}", self.largest_batch)?;
        // The kernel crate has no other division of 64 bits for processors of 32.
        let tenths = Delta::from_nanos(10 * self.batches as i64)
            / Delta::from_nanos(self.flushes.max(1) as i64);
        let tenths = tenths as usize;
        writeln!(f, "mean_batch: {}.{}", tenths / 10, tenths % 10)?;
        writeln!(f, "gathered: {}", self.gathered.0)?;
        writeln!(f, "gathered_in_vain: {}", self.gathered.1)?;
        let mean = Delta::from_nanos(self.mean_service as i64);
        writeln!(f, "mean_service_us: {}", mean.as_micros_ceil())?;
        writeln!(f, "errors: {}", self.errors)?;
        writeln!(f, "recoveries: {}", self.recoveries)?;
        writeln!(f, "lost: {}", self.lost)?;

        for (bucket, count) in self.latency.iter().enumerate().filter(|(_, n)| **n > 0) {
            if bucket == BUCKETS - 1 {
                writeln!(f, "latency_us_longer: {count}")?;
            } else {
                writeln!(f, "latency_us_below_{}: {count}", 1u64 << bucket)?;
            }
        }
        Ok(())
    }
}

#[kunit_tests(virtio_pmem_rust_stats)]
mod tests {
    use super::*;
    use kernel::str::CString;

    #[test]
    fn sorts_latencies() {
        let mut stats = Stats::default();

        for micros in [0, 1, 2, 3, 4, 1000, i64::MAX / 1000] {
            stats.answered(Delta::from_micros(micros));
        }
        assert_eq!(stats.latency[..4], [1, 1, 2, 1]);
        assert_eq!(stats.latency[10], 1);
        assert_eq!(stats.latency[BUCKETS - 1], 1);
    }

    #[test]
    fn keeps_the_largest_batch() {
        let mut stats = Stats::default();

        stats.sent(3);
        stats.sent(64);
        stats.sent(1);
        assert_eq!((stats.flushes, stats.largest_batch), (3, 64));
        assert_eq!(stats.batches, 68);
    }

    struct Shown(Stats);

    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.show(f)
        }
    }

    #[test]
    fn shows_each_counter() -> Result {
        let mut stats = Stats {
            callers: 70,
            gathered: (2, 1),
            mean_service: 1500,
            errors: 4,
            recoveries: 5,
            lost: 6,
            ..Stats::default()
        };

        for callers in [64, 3, 3] {
            stats.sent(callers);
        }
        for micros in [1, 1, 5, i64::MAX / 1000] {
            stats.answered(Delta::from_micros(micros));
        }
        let text = CString::try_from_fmt(fmt!("{}", Shown(stats)))?;

        assert_eq!(
            text.to_bytes(),
            b"callers: 70\n\
              host_flushes: 3\n\
              largest_batch: 64\n\
              mean_batch: 23.3\n\
              gathered: 2\n\
              gathered_in_vain: 1\n\
              mean_service_us: 2\n\
              errors: 4\n\
              recoveries: 5\n\
              lost: 6\n\
              latency_us_below_2: 2\n\
              latency_us_below_8: 1\n\
              latency_us_longer: 1\n"
        );
        Ok(())
    }

    #[test]
    fn shows_that_there_was_nothing() -> Result {
        let text = CString::try_from_fmt(fmt!("{}", Shown(Stats::default())))?;

        assert!(text
            .to_bytes()
            .starts_with(b"callers: 0\nhost_flushes: 0\n"));
        assert!(text.to_bytes().ends_with(b"\nlost: 0\n"));
        Ok(())
    }
}
