// SPDX-License-Identifier: GPL-2.0

//! The driver's flush path in all interleavings of a few threads, and in all orders of their
//! accesses to memory that the memory model allows, by loom.
//!
//! The driver's own files run here, not copies: the engine, `flush.rs` and what is below it, and of
//! the kernel crate `WaitList`, `BioList` and their chain. `build.rs` includes them, with the
//! stand-ins of `shim.rs` for the kernel's types, and once for each mutant: a driver with a fault,
//! of which `scenario.rs` must find each.
//!
//! Modelled by hand, because they are C or of the kernel:
//!
//! - the virtqueue, after `virtio_ring.c` with EVENT_IDX: one descriptor, the indices with the
//!   barriers that it has, and a host that sleeps until it is notified;
//! - locks, condition variables, completions and the work queue, from loom's mutex and condition
//!   variable, which order as the kernel's do; RCU, as a lock with readers;
//! - a `Bio`, whose completion checks what the submitter relies on;
//! - `pmem_wmb()`, as a fence that orders the earlier stores. A driver without it is not found: the
//!   lock orders such stores, too (`tests/litmus/stores-before-request.litmus`).
//!
//! Left out: timers and the watchdog, which only call `update()` as others do (a wait that needs
//! them is a deadlock here), gathering, statistics and trace events. The model in `tests/model`
//! has the states that these lead to.

pub mod shim;
pub mod stubs;

use std::sync::{
    atomic::{
        AtomicUsize,
        Ordering, //
    },
    Arc, //
};

/// A mutant's name, the scenario that finds it, also as a function, and what is reported there.
pub type Mutant = (&'static str, &'static str, &'static str, fn(usize));

include!(concat!(env!("OUT_DIR"), "/trees.rs"));

/// Runs `scenario` in all executions with so many preemptions of a thread.
pub fn explore(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();

    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        scenario();
        shim::end_of_execution();
    });
    println!(
        "explored: {} executions with {preemptions} preemptions",
        executions.load(Ordering::Relaxed)
    );
}
