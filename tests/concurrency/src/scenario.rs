// SPDX-License-Identifier: GPL-2.0

//! Callers, a host and a task that stops the device, as threads. Each scenario takes the number of
//! preemptions.

use crate::{
    engine::Responses,
    flush::FlushPath, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    bio::Bio,
    device::Device,
    explore,
    nvdimm::{
        BioOffer,
        RegionProvider, //
    },
    prelude::*,
    sync::aref::ARef,
    virtio::{
        self,
        DeviceWork,
        Ring,
        Virtqueue, //
    },
};
use loom::{
    sync::atomic::{
        AtomicBool,
        Ordering::Relaxed, //
    },
    thread,
};
use std::sync::{
    atomic,
    Arc, //
};

/// How many callers there are at most.
const CALLERS: usize = 2;

/// The device, and what is known of each caller.
struct World {
    /// What it has stored, and whether that is durable.
    stores: [AtomicBool; CALLERS],
    durable: [atomic::AtomicBool; CALLERS],
    /// How often the bio of a caller has ended, and whether it was taken.
    ended: [atomic::AtomicU32; CALLERS],
    taken: [atomic::AtomicBool; CALLERS],
    flush: Arc<FlushPath>,
    ring: Arc<Ring>,
}

impl World {
    /// Starts a device whose host fails the flush with the number `fails`.
    fn new(fails: usize) -> (Arc<Self>, thread::JoinHandle<()>) {
        let dev = ARef(Arc::new(Device));
        let flush = FlushPath::new(dev, DeviceWork, false).unwrap();
        let ring = Ring::new();

        flush.attach(Virtqueue::new(ring.clone())).unwrap();
        flush.start(Responses::Direct).unwrap();

        let world = Arc::new(Self {
            stores: Default::default(),
            durable: Default::default(),
            ended: Default::default(),
            taken: Default::default(),
            flush,
            ring,
        });
        let host = world.clone();

        (world, thread::spawn(move || host.serve(fails)))
    }

    /// The host: what it finds in the memory during a flush that succeeds is durable.
    fn serve(&self, fails: usize) {
        let mut number = 0;

        self.ring.serve(
            || {
                number += 1;
                // One more for the removal.
                assert!(number <= CALLERS + 1, "more flushes than callers");
                if number == fails {
                    return 1;
                }
                for (store, durable) in self.stores.iter().zip(&self.durable) {
                    durable.fetch_or(store.load(Relaxed), atomic::Ordering::SeqCst);
                }
                0
            },
            || {
                self.flush.used();
            },
        );
    }

    /// A caller that sleeps.
    fn sleeper(&self, caller: usize) {
        self.stores[caller].store(true, Relaxed);
        if self.flush.flush().is_ok() {
            self.check(caller);
        }
    }

    fn check(&self, caller: usize) {
        let durable = self.durable[caller].load(atomic::Ordering::SeqCst);

        assert!(durable, "acknowledged without a flush");
    }

    /// A caller that leaves a bio with FUA.
    fn bio(self: &Arc<Self>, caller: usize, may_fail: bool) {
        self.stores[caller].store(true, Relaxed);
        let world = self.clone();
        let bio = Box::new(bindings::bio {
            bi_next: core::ptr::null_mut(),
            bi_status: 0,
            is_fua: true,
            end: Box::new(move |status| {
                let before = world.ended[caller].fetch_add(1, atomic::Ordering::SeqCst);

                assert_eq!(before, 0, "a bio has ended twice");
                if status == 0 {
                    world.check(caller);
                } else {
                    let taken = world.taken[caller].load(atomic::Ordering::SeqCst);

                    assert!(may_fail || !taken, "a bio has failed");
                }
            }),
        });
        // SAFETY: It stays until it is completed.
        let bio = unsafe { Bio::from_raw(NonNull::from(Box::leak(bio))) };

        self.flush.flush_bio(BioOffer(bio, PhantomData));
        self.taken[caller].store(true, atomic::Ordering::SeqCst);
    }

    /// Ends the host.
    fn end(&self, host: thread::JoinHandle<()>) {
        self.ring.end();
        host.join().unwrap();
    }

    /// Stops the device for good; all bios have ended then.
    fn stop(&self) {
        self.flush
            .detach(&virtio::Device(self.ring.clone(), PhantomData));
        self.flush.finish();
    }

    fn all_ended(&self, bios: usize) {
        for ended in &self.ended[..bios] {
            let times = ended.load(atomic::Ordering::SeqCst);

            assert_eq!(times, 1, "a bio was not completed");
        }
    }
}

/// Two callers sleep until what they have stored is durable.
pub fn sleepers(preemptions: usize) {
    failing(preemptions, 0);
}

/// The same, and the first flush fails: its callers must not succeed.
pub fn failure(preemptions: usize) {
    failing(preemptions, 1);
}

fn failing(preemptions: usize, fails: usize) {
    explore(preemptions, move || {
        let (world, host) = World::new(fails);
        let other = world.clone();
        let other = thread::spawn(move || other.sleeper(1));

        world.sleeper(0);
        other.join().unwrap();
        world.end(host);
    });
}

/// A callback without a reason comes at any time.
pub fn spurious(preemptions: usize) {
    explore(preemptions, || {
        let (world, host) = World::new(0);
        let other = world.clone();
        let other = thread::spawn(move || {
            other.flush.used();
        });

        world.sleeper(0);
        other.join().unwrap();
        world.end(host);
    });
}

/// The device is stopped, as for a suspend that is then aborted, while a caller arrives.
pub fn suspend(preemptions: usize) {
    explore(preemptions, || {
        let (world, host) = World::new(0);
        let other = world.clone();
        let other = thread::spawn(move || other.sleeper(0));

        world.flush.quiesce(|| false).unwrap();
        world.flush.resume();
        other.join().unwrap();
        world.end(host);
    });
}

/// A bio arrives while the device is removed in good order: it succeeds first, or is refused.
pub fn removal(preemptions: usize) {
    explore(preemptions, || {
        let (world, host) = World::new(0);
        let other = world.clone();
        let other = thread::spawn(move || other.bio(0, false));

        world.flush.close();
        other.join().unwrap();
        world.stop();
        world.all_ended(1);
        world.end(host);
    });
}

/// A bio and a caller that sleeps share flushes.
pub fn mixed(preemptions: usize) {
    explore(preemptions, || {
        let (world, host) = World::new(0);
        let other = world.clone();
        let other = thread::spawn(move || other.sleeper(1));

        world.bio(0, false);
        other.join().unwrap();
        world.flush.close();
        world.stop();
        world.all_ended(1);
        world.end(host);
    });
}

/// The device is given up while it has a bio, which ends all the same.
pub fn surprise(preemptions: usize) {
    explore(preemptions, || {
        let (world, host) = World::new(0);

        world.bio(0, true);
        world.flush.give_up("gone");
        world.stop();
        world.all_ended(1);
        world.end(host);
    });
}
