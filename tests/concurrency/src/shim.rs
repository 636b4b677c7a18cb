// SPDX-License-Identifier: GPL-2.0

//! Stand-ins for the kernel, made of loom's mutex, condition variable, atomics and cells.

use loom::{
    cell::UnsafeCell as Checked,
    sync::{
        atomic::{
            fence,
            AtomicUsize,
            Ordering, //
        },
        Condvar,
        Mutex, //
    },
};
use std::{
    any::Any,
    cell::RefCell,
    pin::Pin,
    sync::Arc, //
};

pub use crate::{
    dev_err,
    dev_warn,
    explore,
    new_condvar,
    new_embedded_work,
    new_spinlock_irq,
    pin_init,
    pr_warn_once,
    stack_pin_init,
    try_pin_init, //
};

// Values

thread_local! {
    /// What lay on a caller's stack. It is kept to the end of an execution, so that a late access
    /// is a race that loom reports.
    static STACKS: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a value that lies on a stack.
pub fn on_stack<T: 'static>(value: Result<T, Error>) -> Pin<&'static mut T> {
    let raw = Box::into_raw(Box::new(value.unwrap()));

    // SAFETY: It stays until the end of the execution, which no reference outlives.
    unsafe {
        STACKS.with_borrow_mut(|stacks| stacks.push(Box::from_raw(raw)));
        Pin::new_unchecked(&mut *raw)
    }
}

/// Frees what lay on stacks.
pub fn end_of_execution() {
    drop(STACKS.take());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(&'static str);

impl Error {
    pub fn to_blk_status(self) -> u8 {
        10
    }
}

#[macro_export]
macro_rules! pin_init {
    (@ $type:tt { $($done:tt)* }) => {
        (|| -> ::core::result::Result<$type, $crate::shim::Error> { Ok($type { $($done)* }) })()
    };
    (@ $type:tt { $($done:tt)* } $field:ident <- $init:expr, $($rest:tt)*) => {
        $crate::pin_init!(@ $type { $($done)* $field: $init?, } $($rest)*)
    };
    (@ $type:tt { $($done:tt)* } $field:ident: $value:expr, $($rest:tt)*) => {
        $crate::pin_init!(@ $type { $($done)* $field: $value, } $($rest)*)
    };
    (@ $type:tt { $($done:tt)* } $field:ident, $($rest:tt)*) => {
        $crate::pin_init!(@ $type { $($done)* $field, } $($rest)*)
    };
    ($type:tt { $($fields:tt)* }) => {
        $crate::pin_init!(@ $type {} $($fields)*)
    };
}

#[macro_export]
macro_rules! try_pin_init {
    ($($init:tt)*) => { $crate::pin_init!($($init)*) };
}

#[macro_export]
macro_rules! stack_pin_init {
    (let $name:ident = $init:expr) => {
        let $name = $crate::shim::on_stack($init);
    };
}

#[macro_export]
macro_rules! new_spinlock_irq {
    ($value:expr, $name:expr) => {
        $crate::shim::sync::SpinLockIrq::new($value)
    };
}

#[macro_export]
macro_rules! new_condvar {
    ($name:expr) => {
        $crate::shim::sync::CondVar::new()
    };
}

#[macro_export]
macro_rules! new_embedded_work {
    ($init:expr, $name:expr) => {
        $crate::shim::workqueue::EmbeddedWork::new($init)
    };
}

#[macro_export]
macro_rules! dev_err {
    ($dev:expr, $($text:tt)*) => {
        drop(&$dev)
    };
}

#[macro_export]
macro_rules! dev_warn {
    ($dev:expr, $($text:tt)*) => {
        $crate::dev_err!($dev, $($text)*)
    };
}

#[macro_export]
macro_rules! pr_warn_once {
    ($($text:tt)*) => {};
}

pub mod prelude {
    pub use super::{
        bindings,
        Error, //
    };
    pub use crate::{
        dev_err,
        dev_warn,
        pin_init,
        try_pin_init, //
    };
    pub use std::pin::Pin;

    pub type Result<T = (), E = Error> = core::result::Result<T, E>;

    pub const EIO: Error = Error("EIO");
    pub const ENODEV: Error = Error("ENODEV");
    pub const ENOMEM: Error = Error("ENOMEM");
    pub const EROFS: Error = Error("EROFS");
    pub const ETIMEDOUT: Error = Error("ETIMEDOUT");
    pub const GFP_KERNEL: () = ();

    pub struct KBox<T>(T);

    impl<T> KBox<T> {
        pub fn new(value: T, _: ()) -> Result<Self> {
            Ok(Self(value))
        }
    }

    impl<T> core::ops::Deref for KBox<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> core::ops::DerefMut for KBox<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    /// The initialisation of an `Arc`.
    pub trait PinInit<T> {
        fn pin_init(init: Result<T>, _: ()) -> Result<std::sync::Arc<T>>;
    }

    impl<T> PinInit<T> for std::sync::Arc<T> {
        fn pin_init(init: Result<T>, _: ()) -> Result<Self> {
            init.map(Self::new)
        }
    }
}

pub mod str {
    pub fn kstrtobool_bytes() {}
}

pub mod debugfs {
    pub struct ScopedDir;
}

pub mod uapi {
    pub const VIRTIO_PMEM_REQ_TYPE_FLUSH: u32 = 0;
}

pub mod alloc {
    pub mod kmemleak {
        pub fn not_leak<T>(_: &T) {}
        pub fn leak<T>(value: T) {
            core::mem::forget(value);
        }
    }
}

pub mod device {
    use core::marker::PhantomData;

    pub struct Core<'a>(PhantomData<&'a ()>);

    pub struct Device;

    impl Device {
        pub fn name(&self) -> &'static str {
            "virtio0"
        }
    }
}

/// A cell, each access to which excludes all others.
pub struct UnsafeCell<T> {
    check: Checked<()>,
    value: core::cell::UnsafeCell<T>,
}

impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> Self {
        Self {
            check: Checked::new(()),
            value: core::cell::UnsafeCell::new(value),
        }
    }

    /// The access follows at once.
    pub fn get(&self) -> *mut T {
        self.check.with_mut(|_| ());
        self.value.get()
    }
}

/// The same, for a link of a list.
pub struct Cell<T>(UnsafeCell<T>);

impl<T: Copy> Cell<T> {
    pub fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub fn as_ptr(&self) -> *mut T {
        self.0.get()
    }

    pub fn get(&self) -> T {
        // SAFETY: loom runs one thread at a time.
        unsafe { *self.0.get() }
    }

    pub fn set(&self, value: T) {
        // SAFETY: As above.
        unsafe { *self.0.get() = value }
    }
}

pub mod types {
    use super::Error;

    pub struct Opaque<T>(core::cell::UnsafeCell<T>);

    impl<T> Opaque<T> {
        pub fn ffi_init(init: impl FnOnce(*mut T)) -> Result<Self, Error> {
            let mut value = core::mem::MaybeUninit::uninit();

            init(value.as_mut_ptr());
            // SAFETY: It was initialised.
            Ok(Self(core::cell::UnsafeCell::new(unsafe {
                value.assume_init()
            })))
        }

        pub fn get(&self) -> *mut T {
            self.0.get()
        }
    }
}

// Locks and completions

pub mod bindings {
    use loom::sync::{
        Condvar,
        Mutex, //
    };

    /// The kernel's: a flag and its waiters, under a lock.
    #[allow(non_camel_case_types)]
    pub struct completion {
        done: Mutex<bool>,
        wait: Condvar,
    }

    /// # Safety
    ///
    /// `this` is valid for writing.
    pub unsafe fn init_completion(this: *mut completion) {
        unsafe {
            this.write(completion {
                done: Mutex::new(false),
                wait: Condvar::new(),
            });
        }
    }

    /// # Safety
    ///
    /// `this` is valid.
    pub unsafe fn complete(this: *mut completion) {
        let this = unsafe { &*this };
        let mut done = this.done.lock().unwrap();

        *done = true;
        this.wait.notify_one();
    }

    /// # Safety
    ///
    /// `this` is valid.
    pub unsafe fn wait_for_completion(this: *mut completion) {
        let this = unsafe { &*this };
        let mut done = this.done.lock().unwrap();

        while !*done {
            done = this.wait.wait(done).unwrap();
        }
    }

    /// A bio, and what its submitter checks when it ends.
    #[allow(non_camel_case_types)]
    pub struct bio {
        pub bi_next: *mut bio,
        pub bi_status: u8,
        pub is_fua: bool,
        pub end: Box<dyn Fn(u8)>,
    }
}

pub mod bio {
    use super::{
        bindings,
        prelude::*, //
    };
    use core::ptr::{
        self,
        NonNull, //
    };

    /// A bio that is to be completed. Dropping it does nothing, so the submitter misses it.
    pub struct Bio(NonNull<bindings::bio>);

    impl Bio {
        /// # Safety
        ///
        /// As the kernel's.
        pub unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
            Self(bio)
        }

        pub fn into_raw(self) -> NonNull<bindings::bio> {
            self.0
        }

        pub fn is_fua(&self) -> bool {
            unsafe { self.0.as_ref() }.is_fua
        }

        pub fn has_data(&self) -> bool {
            self.is_fua()
        }

        pub fn complete(mut self, result: Result) {
            let bio = unsafe { self.0.as_mut() };

            bio.bi_next = ptr::null_mut();
            if let Err(err) = result {
                bio.bi_status = err.to_blk_status();
            }
            (bio.end)(bio.bi_status);
            // SAFETY: The submitter has made it a raw pointer, and does not use it any more.
            drop(unsafe { Box::from_raw(bio) });
        }
    }
}

pub mod sync {
    use super::prelude::*;
    use core::ops::{
        Deref,
        DerefMut, //
    };
    use loom::sync::{
        Condvar,
        Mutex,
        MutexGuard, //
    };

    pub use std::sync::Arc;

    pub mod aref {
        pub struct ARef<T>(pub std::sync::Arc<T>);

        impl<T> Clone for ARef<T> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<T> core::ops::Deref for ARef<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }
    }

    /// Values that do not change here.
    pub mod atomic {
        pub struct Relaxed;

        pub struct Atomic<T>(T);

        impl<T: Copy> Atomic<T> {
            pub fn new(value: T) -> Self {
                Self(value)
            }

            pub fn load(&self, _: Relaxed) -> T {
                self.0
            }
        }
    }

    pub struct SpinLockIrq<T>(Mutex<T>);

    impl<T> SpinLockIrq<T> {
        pub fn new(value: T) -> Result<Self> {
            Ok(Self(Mutex::new(value)))
        }

        pub fn lock(&self) -> Guard<'_, T> {
            Guard(Some(self.0.lock().unwrap()))
        }
    }

    pub struct Guard<'a, T>(Option<MutexGuard<'a, T>>);

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    pub struct CondVar(Condvar);

    impl CondVar {
        pub fn new() -> Result<Self> {
            Ok(Self(Condvar::new()))
        }

        pub fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            let inner = guard.0.take().unwrap();

            guard.0 = Some(self.0.wait(inner).unwrap());
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    pub mod rcu {
        use loom::sync::{
            Condvar,
            Mutex, //
        };

        loom::lazy_static! {
            static ref READERS: Mutex<usize> = Mutex::new(0);
            static ref NONE: Condvar = Condvar::new();
        }

        pub struct Guard;

        pub fn read_lock() -> Guard {
            *READERS.lock().unwrap() += 1;
            Guard
        }

        impl Drop for Guard {
            fn drop(&mut self) {
                let mut readers = READERS.lock().unwrap();

                *readers -= 1;
                if *readers == 0 {
                    NONE.notify_all();
                }
            }
        }

        /// Waits for the readers, also for those that come meanwhile.
        pub fn synchronize() {
            let mut readers = READERS.lock().unwrap();

            while *readers > 0 {
                readers = NONE.wait(readers).unwrap();
            }
        }
    }
}

// Time does not pass

pub mod time {
    use core::ops::Add;

    pub const NSEC_PER_SEC: i64 = 1_000_000_000;

    #[derive(Clone, Copy, PartialEq, PartialOrd)]
    pub struct Delta(i64);

    impl Delta {
        pub fn from_nanos(nanos: i64) -> Self {
            Self(nanos)
        }

        pub fn as_nanos(self) -> i64 {
            self.0
        }
    }

    pub struct Monotonic;

    pub struct Instant<C>(core::marker::PhantomData<C>);

    impl<C> Clone for Instant<C> {
        fn clone(&self) -> Self {
            *self
        }
    }

    impl<C> Copy for Instant<C> {}

    impl<C> Instant<C> {
        pub fn now() -> Self {
            Self(core::marker::PhantomData)
        }

        pub fn elapsed(self) -> Delta {
            Delta(0)
        }
    }

    impl<C> Add<Delta> for Instant<C> {
        type Output = Self;

        fn add(self, _: Delta) -> Self {
            self
        }
    }

    pub mod hrtimer {
        use super::{
            super::prelude::*,
            Delta,
            Instant,
            Monotonic, //
        };

        pub fn resolution() -> Delta {
            Delta(10_000_000)
        }

        pub trait EmbeddedTimerItem: Sized {
            fn expired(this: Pin<&EmbeddedTimer<Self>>);
        }

        pub struct EmbeddedTimer<T>(T);

        impl<T> EmbeddedTimer<T> {
            pub fn new(inner: Result<T>) -> Result<Self> {
                inner.map(Self)
            }

            pub fn start(&self, _: Instant<Monotonic>) {}

            pub fn try_cancel(&self) -> bool {
                false
            }
        }

        impl<T> core::ops::Deref for EmbeddedTimer<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }
    }
}

// The work queue: a thread, which begins with the first work item

pub mod workqueue {
    use super::{
        prelude::*,
        Condvar,
        Mutex,
        RefCell, //
    };
    use std::{
        collections::VecDeque,
        ffi::CStr,
        rc::Rc,
        thread::panicking, //
    };

    pub use crate::new_embedded_work;

    type Job = Box<dyn FnOnce()>;

    struct Jobs {
        waiting: VecDeque<Job>,
        ends: bool,
    }

    struct Inner {
        jobs: Mutex<Jobs>,
        more: Condvar,
        worker: RefCell<Option<loom::thread::JoinHandle<()>>>,
    }

    pub struct Queue(Rc<Inner>);

    pub struct Builder;

    impl Queue {
        pub fn new_ordered() -> Builder {
            Builder
        }

        fn push(&self, job: Job) {
            self.0.jobs.lock().unwrap().waiting.push_back(job);
            self.0.more.notify_one();

            let inner = self.0.clone();
            self.0.worker.borrow_mut().get_or_insert_with(|| {
                loom::thread::spawn(move || {
                    let mut jobs = inner.jobs.lock().unwrap();

                    loop {
                        if let Some(job) = jobs.waiting.pop_front() {
                            drop(jobs);
                            job();
                            jobs = inner.jobs.lock().unwrap();
                        } else if jobs.ends {
                            return;
                        } else {
                            jobs = inner.more.wait(jobs).unwrap();
                        }
                    }
                })
            });
        }
    }

    impl Builder {
        pub fn mem_reclaim(self) -> Self {
            self
        }

        pub fn build(self, _: &CStr) -> Result<OwnedQueue> {
            Ok(OwnedQueue(Queue(Rc::new(Inner {
                jobs: Mutex::new(Jobs {
                    waiting: VecDeque::new(),
                    ends: false,
                }),
                more: Condvar::new(),
                worker: RefCell::new(None),
            }))))
        }
    }

    pub struct OwnedQueue(Queue);

    impl core::ops::Deref for OwnedQueue {
        type Target = Queue;

        fn deref(&self) -> &Queue {
            &self.0
        }
    }

    impl Drop for OwnedQueue {
        fn drop(&mut self) {
            let inner = &self.0 .0;

            if let (Some(worker), false) = (inner.worker.take(), panicking()) {
                inner.jobs.lock().unwrap().ends = true;
                inner.more.notify_one();
                worker.join().unwrap();
            }
        }
    }

    pub trait EmbeddedWorkItem: Sized + 'static {
        fn run(this: Pin<&EmbeddedWork<Self>>);
    }

    #[derive(Default)]
    struct Busy {
        queued: bool,
        runs: bool,
    }

    pub struct EmbeddedWork<T> {
        inner: T,
        busy: Mutex<Busy>,
        idle: Condvar,
    }

    impl<T> EmbeddedWork<T> {
        pub fn new(inner: Result<T>) -> Result<Self> {
            Ok(Self {
                inner: inner?,
                busy: Mutex::new(Busy::default()),
                idle: Condvar::new(),
            })
        }

        pub fn flush(&self) {
            let mut busy = self.busy.lock().unwrap();

            while busy.queued || busy.runs {
                busy = self.idle.wait(busy).unwrap();
            }
        }
    }

    impl<T: EmbeddedWorkItem> EmbeddedWork<T> {
        pub fn enqueue(&self, queue: &Queue) -> bool {
            let mut busy = self.busy.lock().unwrap();

            if busy.queued {
                return false;
            }
            busy.queued = true;
            drop(busy);

            let this = core::ptr::from_ref(self);
            queue.push(Box::new(move || {
                // SAFETY: Dropping it waits for this.
                let this = unsafe { Pin::new_unchecked(&*this) };

                *this.busy.lock().unwrap() = Busy {
                    queued: false,
                    runs: true,
                };
                T::run(this);
                this.busy.lock().unwrap().runs = false;
                this.idle.notify_all();
            }));
            true
        }
    }

    impl<T> core::ops::Deref for EmbeddedWork<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.inner
        }
    }
}

// libnvdimm

pub mod nvdimm {
    use super::{
        bio::Bio,
        fence,
        prelude::*,
        Ordering, //
    };
    use core::marker::PhantomData;

    /// Orders the caller's earlier stores before what makes the host find the request.
    pub fn pmem_wmb() {
        fence(Ordering::Release);
    }

    pub trait RegionProvider {
        fn flush(&self) -> Result;
        fn flush_bio<'a>(&self, offer: BioOffer<'a>) -> BioOutcome<'a>;
    }

    pub struct BioOffer<'a>(pub Bio, pub PhantomData<&'a ()>);

    pub struct BioOutcome<'a>(PhantomData<&'a ()>);

    impl<'a> BioOffer<'a> {
        pub fn take(self, keep: impl FnOnce(Bio)) -> BioOutcome<'a> {
            keep(self.0);
            BioOutcome(PhantomData)
        }

        pub fn done(self) -> BioOutcome<'a> {
            self.0.complete(Ok(()));
            BioOutcome(PhantomData)
        }

        pub fn reject(self, error: Error) -> BioOutcome<'a> {
            self.0.complete(Err(error));
            BioOutcome(PhantomData)
        }
    }

    impl core::ops::Deref for BioOffer<'_> {
        type Target = Bio;

        fn deref(&self) -> &Bio {
            &self.0
        }
    }
}

// virtio

pub mod virtio {
    use super::{
        device::Core,
        fence,
        prelude::*,
        sync::rcu,
        Arc,
        AtomicUsize,
        Checked,
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
        descriptor: Checked<Option<Response>>,
        available: AtomicUsize,
        used: AtomicUsize,
        available_event: AtomicUsize,
        used_event: AtomicUsize,
        /// Read by notifications, written by the end of the queue.
        lives: Checked<()>,
        doorbell: Mutex<Doorbell>,
        rung: Condvar,
    }

    #[derive(Default)]
    struct Doorbell {
        rings: bool,
        ends: bool,
    }

    impl Ring {
        pub fn new() -> Arc<Self> {
            Arc::new(Self {
                descriptor: Checked::new(None),
                available: AtomicUsize::new(0),
                used: AtomicUsize::new(0),
                available_event: AtomicUsize::new(0),
                used_event: AtomicUsize::new(0),
                lives: Checked::new(()),
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
}
