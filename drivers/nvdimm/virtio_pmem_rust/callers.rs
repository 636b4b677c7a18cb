// SPDX-License-Identifier: GPL-2.0

//! The engine's batches of callers, as lists of the kernel.

use crate::engine::{
    Batch,
    Join, //
};
use kernel::{
    block::bio::{
        Bio,
        BioList, //
    },
    sync::wait_list::{
        Joined,
        WaitList,
        Waiter, //
    }, //
};

/// Callers in order of arrival: those that sleep, and those that left a bio.
///
/// The lists are intrusive, so nothing is allocated.
#[derive(Default)]
pub(crate) struct Callers {
    pub(crate) waiters: WaitList,
    /// Bios with FUA.
    pub(crate) fua_bios: BioList,
    /// Bios without FUA, which have no data.
    pub(crate) flush_bios: BioList,
}

impl Batch for Callers {
    fn len(&self) -> usize {
        self.waiters.len() + self.fua_bios.len() + self.flush_bios.len()
    }

    fn append(&mut self, later: &mut Self) {
        self.waiters.append(&mut later.waiters);
        self.fua_bios.append(&mut later.fua_bios);
        self.flush_bios.append(&mut later.flush_bios);
    }
}

impl Join<Bio> for Callers {
    fn join(&mut self, bio: Bio) {
        if bio.is_fua() {
            self.fua_bios.push(bio);
        } else {
            self.flush_bios.push(bio);
        }
    }
}

/// A caller that is about to sleep, and the place for the proof that it has joined.
pub(crate) struct Sleeper<'a, 'w> {
    pub(crate) waiter: Waiter<'w>,
    pub(crate) joined: &'a mut Option<Joined<'w>>,
}

impl<'w> Join<Sleeper<'_, 'w>> for Callers {
    fn join(&mut self, sleeper: Sleeper<'_, 'w>) {
        *sleeper.joined = Some(self.waiters.push(sleeper.waiter));
    }
}
