// SPDX-License-Identifier: GPL-2.0

//! The litmus tests of `tests/litmus`, whose files have the reasons, in loom's memory model. Each
//! order is needed: without its barrier the outcome is possible.

use loom::{
    sync::{
        atomic::{
            fence,
            AtomicBool,
            Ordering::{
                AcqRel,
                Acquire,
                Relaxed,
                Release,
                SeqCst, //
            }, //
        },
        Arc,
        Mutex, //
    },
    thread,
};
use std::sync::atomic;

/// Returns whether `outcome` returns true in any execution.
fn is_possible(outcome: impl Fn() -> bool + Send + Sync + 'static) -> bool {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    static FOUND: atomic::AtomicBool = atomic::AtomicBool::new(false);
    let _lock = LOCK.lock().unwrap();

    FOUND.store(false, atomic::Ordering::SeqCst);
    loom::model(move || {
        FOUND.fetch_or(outcome(), atomic::Ordering::SeqCst);
    });
    FOUND.load(atomic::Ordering::SeqCst)
}

/// Flags that are shared by threads.
fn flags() -> [Arc<AtomicBool>; 3] {
    std::array::from_fn(|_| Arc::new(AtomicBool::new(false)))
}

/// A caller, a task that sends for it, and the host.
fn store_is_missed(has_barrier: bool) -> bool {
    is_possible(move || {
        let [store, waiting, available] = flags();
        let (stored, joined) = (store.clone(), waiting.clone());
        let sent = available.clone();

        thread::spawn(move || {
            stored.store(true, Relaxed);
            if has_barrier {
                fence(Release);
            }
            joined.store(true, Relaxed);
        });
        thread::spawn(move || {
            if waiting.load(Relaxed) {
                fence(AcqRel);
                sent.store(true, Relaxed);
            }
        });
        available.load(Acquire) && !store.load(Relaxed)
    })
}

#[test]
fn stores_are_before_the_request() {
    assert!(!store_is_missed(true));
    assert!(store_is_missed(false));
}

/// The host and the queue's callback.
fn response_is_missed(has_barrier: bool) -> bool {
    is_possible(move || {
        let [response, used, _] = flags();
        let (written, published) = (response.clone(), used.clone());

        thread::spawn(move || {
            written.store(true, Relaxed);
            fence(Release);
            published.store(true, Relaxed);
        });
        let is_used = used.load(Relaxed);
        if has_barrier {
            fence(Acquire);
        }
        is_used && !response.load(Relaxed)
    })
}

#[test]
fn the_response_is_after_the_used_index() {
    assert!(!response_is_missed(true));
    assert!(response_is_missed(false));
}

/// The task that ends a batch, and a caller.
fn result_is_missed(is_before: bool) -> bool {
    is_possible(move || {
        let [result, _, _] = flags();
        let done = Arc::new(Mutex::new(false));
        let (written, completed) = (result.clone(), done.clone());

        thread::spawn(move || {
            if is_before {
                written.store(true, Relaxed);
            }
            *completed.lock().unwrap() = true;
            written.store(true, Relaxed);
        });
        let is_done = *done.lock().unwrap();
        is_done && !result.load(Relaxed)
    })
}

#[test]
fn the_result_is_before_the_wakeup() {
    assert!(!result_is_missed(true));
    assert!(result_is_missed(false));
}

/// The driver and a host that is about to sleep.
fn both_miss(has_barrier: bool) -> bool {
    is_possible(move || {
        let [available, event, _] = flags();
        let (published, asked) = (available.clone(), event.clone());
        let barrier = move || fence(if has_barrier { SeqCst } else { Release });

        let host = thread::spawn(move || {
            asked.store(true, Relaxed);
            fence(SeqCst);
            published.load(Relaxed)
        });
        available.store(true, Relaxed);
        barrier();
        let is_notified = event.load(Relaxed);
        let is_found = host.join().unwrap();
        !is_notified && !is_found
    })
}

#[test]
fn the_host_is_notified_or_finds_the_request() {
    assert!(!both_miss(true));
    assert!(both_miss(false));
}
