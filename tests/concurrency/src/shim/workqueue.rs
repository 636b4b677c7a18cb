// SPDX-License-Identifier: GPL-2.0

//! The work queue: a thread, which begins with the first work item.

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
