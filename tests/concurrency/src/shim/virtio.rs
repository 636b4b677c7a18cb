// SPDX-License-Identifier: GPL-2.0

//! A virtqueue, after `virtio_ring.c`, and the host behind it.

use super::{
    cell,
    device::Core,
    fence,
    prelude::*,
    sync::rcu,
    Arc,
    AtomicUsize,
    Condvar,
    Mutex,
    Ordering, //
};
use core::marker::PhantomData;
use Ordering::{
    Acquire,
    Relaxed,
    Release,
    SeqCst, //
};

#[derive(Clone, Copy)]
pub struct Le32(u32);

impl Le32 {
    pub fn new(value: u32) -> Self {
        Self(value)
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// The memory of a response, which a host may also write after a reset.
type Response = Arc<AtomicUsize>;

pub struct Command<O, I>(Response, PhantomData<(O, I)>);

impl Command<Le32, Le32> {
    pub fn new(_: Le32, response: Le32) -> Self {
        Self(Arc::new(AtomicUsize::new(response.0 as usize)), PhantomData)
    }

    pub fn response(&self) -> Le32 {
        Le32(self.0.load(Relaxed) as u32)
    }

    pub fn set_response(&mut self, response: Le32) {
        self.0.store(response.0 as usize, Relaxed);
    }
}

/// Whether an index that has moved from `old` to `new` has passed `event`.
fn has_passed(event: usize, new: usize, old: usize) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// What the driver and the host share: a ring with one descriptor.
pub struct Ring {
    descriptor: cell::UnsafeCell<Option<Response>>,
    available: AtomicUsize,
    used: AtomicUsize,
    available_event: AtomicUsize,
    used_event: AtomicUsize,
    /// Read by notifications, written by the end of the queue.
    lives: cell::UnsafeCell<()>,
    doorbell: Mutex<Doorbell>,
    rung: Condvar,
}

#[derive(Default)]
struct Doorbell {
    rings: bool,
    ends: bool,
}

impl Ring {
    #[allow(clippy::arc_with_non_send_sync, clippy::new_ret_no_self)]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            descriptor: cell::UnsafeCell::new(None),
            available: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            available_event: AtomicUsize::new(0),
            used_event: AtomicUsize::new(0),
            lives: cell::UnsafeCell::new(()),
            doorbell: Mutex::new(Doorbell::default()),
            rung: Condvar::new(),
        })
    }

    /// The host: serves requests by `flush`, which returns a status, and calls `interrupt`.
    /// Returns when it sleeps after [`end`](Self::end).
    pub fn serve(&self, mut flush: impl FnMut() -> u32, interrupt: impl Fn()) {
        let mut taken = 0;

        loop {
            if self.available.load(Acquire) == taken {
                self.available_event.store(taken, Relaxed);
                fence(SeqCst);
                if self.available.load(Relaxed) == taken && !self.sleep() {
                    return;
                }
                continue;
            }
            // SAFETY: loom reports a race.
            let response = self
                .descriptor
                .with(|place| unsafe { (*place).clone().unwrap() });
            let status = flush();

            response.store(status as usize, Relaxed);
            taken += 1;
            fence(Release);
            self.used.store(taken, Relaxed);
            fence(SeqCst);
            if has_passed(self.used_event.load(Relaxed), taken, taken - 1) {
                interrupt();
            }
        }
    }

    /// Waits for a notification; returns false if none is to come.
    fn sleep(&self) -> bool {
        let mut doorbell = self.doorbell.lock().unwrap();

        while !doorbell.rings {
            if doorbell.ends {
                return false;
            }
            doorbell = self.rung.wait(doorbell).unwrap();
        }
        doorbell.rings = false;
        true
    }

    fn ring(&self) {
        self.lives.with(|_| ());
        self.doorbell.lock().unwrap().rings = true;
        self.rung.notify_one();
    }

    /// No notification is to come.
    pub fn end(&self) {
        self.doorbell.lock().unwrap().ends = true;
        self.rung.notify_one();
    }
}

pub struct Virtqueue<B> {
    ring: Arc<Ring>,
    buffer: Option<B>,
    available: usize,
    added: usize,
    used: usize,
}

impl<B> Virtqueue<B> {
    pub fn new(ring: Arc<Ring>) -> Self {
        Self {
            ring,
            buffer: None,
            available: 0,
            added: 0,
            used: 0,
        }
    }

    /// `virtqueue_kick_prepare()`.
    pub fn kick_prepare(&mut self) -> bool {
        fence(SeqCst);
        let old = self.available - self.added;

        self.added = 0;
        has_passed(self.ring.available_event.load(Relaxed), self.available, old)
    }

    /// `virtqueue_get_buf()`.
    pub fn get(&mut self) -> Option<(B, u32)> {
        if self.ring.used.load(Relaxed) == self.used {
            return None;
        }
        fence(Acquire);
        self.used += 1;
        self.ring.used_event.store(self.used, Relaxed);
        fence(SeqCst);
        Some((self.buffer.take().unwrap(), 4))
    }

    /// `virtqueue_enable_cb()`.
    pub fn enable_callback(&mut self) -> bool {
        self.ring.used_event.store(self.used, Relaxed);
        fence(SeqCst);
        self.ring.used.load(Relaxed) == self.used
    }

    pub fn is_broken(&self) -> bool {
        false
    }

    pub fn is_mapped(&self) -> bool {
        false
    }

    pub fn notifier<'rcu>(&self, _: &'rcu rcu::Guard) -> Notifier<'rcu> {
        Notifier(self.ring.clone(), PhantomData)
    }
}

impl Virtqueue<KBox<Command<Le32, Le32>>> {
    /// `virtqueue_add_sgs()`.
    pub fn add(
        &mut self,
        buffer: KBox<Command<Le32, Le32>>,
    ) -> Result<(), (Error, KBox<Command<Le32, Le32>>)> {
        let response = buffer.0.clone();

        // SAFETY: loom reports a race.
        self.ring
            .descriptor
            .with_mut(|place| unsafe { *place = Some(response) });
        self.buffer = Some(buffer);
        self.available += 1;
        self.added += 1;
        fence(Release);
        self.ring.available.store(self.available, Relaxed);
        Ok(())
    }
}

pub struct Notifier<'rcu>(Arc<Ring>, PhantomData<&'rcu ()>);

impl Notifier<'_> {
    pub fn notify(self) -> bool {
        self.0.ring();
        true
    }
}

#[derive(Clone)]
pub struct DeviceWork;

impl DeviceWork {
    pub fn schedule(&self) {}
}

pub struct Device<C>(pub Arc<Ring>, pub PhantomData<C>);

impl Device<Core<'_>> {
    pub fn stop_queues(&self) -> Stopped {
        rcu::synchronize();
        self.0.lives.with_mut(|_| ());
        Stopped
    }
}

pub struct Stopped;

impl Stopped {
    pub fn get<B>(&mut self, queue: &mut Virtqueue<B>) -> Option<(B, u32)> {
        queue.get()
    }

    pub fn detach<B>(&mut self, queue: &mut Virtqueue<B>) -> Option<B> {
        queue.buffer.take()
    }
}
