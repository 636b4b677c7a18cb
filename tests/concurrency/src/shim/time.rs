// SPDX-License-Identifier: GPL-2.0

//! Time, which does not pass.

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
