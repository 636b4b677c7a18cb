// SPDX-License-Identifier: GPL-2.0

//! Stand-ins for the kernel, made of loom's mutex, condition variable, atomics and cells.

use loom::{
    cell,
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
    ($dev:expr, $($text:tt)*) => {{
        let _ = &$dev;
    }};
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
    check: cell::UnsafeCell<()>,
    value: core::cell::UnsafeCell<T>,
}

impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> Self {
        Self {
            check: cell::UnsafeCell::new(()),
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

pub mod bindings;

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
            // SAFETY: An owned bio is valid, and has no other owner.
            unsafe { self.0.as_ref() }.is_fua
        }

        pub fn has_data(&self) -> bool {
            self.is_fua()
        }

        pub fn complete(mut self, result: Result) {
            // SAFETY: An owned bio is valid, and has no other owner.
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

pub mod sync;

pub mod time;

pub mod workqueue;

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

pub mod virtio;
