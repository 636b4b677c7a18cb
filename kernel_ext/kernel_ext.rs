// SPDX-License-Identifier: GPL-2.0

//! The `kernel` crate of the driver's module, for a kernel that was built without the overlay: what
//! that kernel's crate has, and the abstractions that it lacks.
//!
//! The abstractions are the files of `rust/kernel/`. Their tests do not run here.

extern crate self as kernel;

pub use rust_kernel::*;

/// Of messages printed by this crate. In a module, `module!` makes it.
const __LOG_PREFIX: &[u8] = b"virtio_pmem_rust\0";

/// The kernel's bindings, and those that its crate does not have.
#[allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]
pub mod bindings {
    use pin_init::{
        MaybeZeroable,
        Zeroable, //
    };
    use rust_kernel::ffi;

    pub use rust_kernel::bindings::*;

    // What is defined here has preference to the kernel's.
    include!(concat!(env!("KERNEL_EXT_OUT"), "/bindings.rs"));
    include!(concat!(env!("KERNEL_EXT_OUT"), "/bindings_helpers.rs"));
}

pub mod uapi {
    //! The interface to user space, which devices share.
    pub use crate::bindings::*;
}

mod private;

pub mod prelude {
    //! The kernel's prelude, with access to what is private in its crate.
    pub use crate::{
        bindings,
        private::*, //
    };
    pub use rust_kernel::prelude::*;
}

// These have preference to the kernel's modules of the same name.
pub use overlay::{
    alloc,
    block,
    nvdimm,
    sync,
    time,
    tracepoint,
    types,
    virtio,
    workqueue, //
};

/// The modules of `rust/kernel/`, each with what the kernel has in it.
#[path = "../rust/kernel"]
mod overlay {
    pub mod nvdimm;
    pub mod virtio;

    pub mod alloc {
        //! Memory.
        pub mod kmemleak;
        pub mod scope;

        pub use rust_kernel::alloc::*;
    }

    pub mod block {
        //! Block devices.
        pub mod bio;

        pub use rust_kernel::block::*;
    }

    pub mod sync {
        //! Synchronization.
        pub mod wait_list;

        pub use rust_kernel::sync::*;
        pub use wait_list::WaitList;
    }

    pub mod time {
        //! Time.
        pub use rust_kernel::time::*;

        pub mod hrtimer {
            //! Timers.
            mod embedded;

            pub use embedded::{
                resolution,
                EmbeddedTimer,
                EmbeddedTimerItem, //
            };
            pub use rust_kernel::time::hrtimer::*;
        }
    }

    pub mod tracepoint {
        //! Trace events.
        pub use crate::declare_trace;
    }

    pub mod types {
        //! Types.
        mod brand;
        mod chain;

        pub(crate) use brand::Brand;
        pub(crate) use chain::{
            Chain,
            Link, //
        };
        pub use rust_kernel::types::*;
    }

    pub mod workqueue {
        //! Work queues.
        mod embedded;
        mod owned;

        pub use embedded::{
            new_embedded_work,
            EmbeddedWork,
            EmbeddedWorkItem, //
        };
        pub use owned::{
            Builder,
            OwnedQueue, //
        };
        pub use rust_kernel::workqueue::*;
    }
}
