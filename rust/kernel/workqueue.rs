// SPDX-License-Identifier: GPL-2.0

mod embedded;
mod ordered;

pub use embedded::{
    new_embedded_work,
    Embedded,
    EmbeddedWork, //
};
pub use ordered::{
    OrderedQueue,
    OrderedQueueBuilder,
    WorkQueue, //
};
