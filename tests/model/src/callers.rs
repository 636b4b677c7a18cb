// SPDX-License-Identifier: GPL-2.0

//! The callers, and the rules on how they end.

use crate::{
    engine::Batch,
    violated,
    Violation, //
};

/// The kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sleeps, and is woken by the driver.
    Sync,
    /// Is completed by the ordered work item.
    Bio,
}

/// A batch, as the engine holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct List(pub Vec<u8>);

impl Batch for List {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn append(&mut self, later: &mut Self) {
        self.0.append(&mut later.0);
    }
}

/// How the engine ends a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Acknowledged.
    Done,
    /// Failed by the host.
    Failed,
    /// Failed without an answer of its own: the device is broken, or an answer was ambiguous.
    Excused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Caller {
    id: u8,
    kind: Kind,
    /// A host flush that covers it has succeeded.
    durable: bool,
    /// A host flush that covers it has failed.
    failed: bool,
    /// And the error was reported to the driver.
    reported: bool,
    /// A flush was sent since it arrived.
    sent: bool,
    /// A bio that waits for the work item.
    ended: bool,
}

/// The callers that have arrived and not ended, in order of arrival.
///
/// The number of a caller that has ended is used again, so that the number of states stays finite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Callers {
    all: Vec<Caller>,
}

impl Callers {
    pub fn len(&self) -> usize {
        self.all.len()
    }
    /// Whether the work item has something to do.
    pub fn has_work(&self) -> bool {
        self.all.iter().any(|caller| caller.ended)
    }
    /// How many callers the engine has.
    pub fn waiting(&self) -> usize {
        self.all.iter().filter(|caller| !caller.ended).count()
    }

    pub fn arrive(&mut self, kind: Kind) -> u8 {
        let is_free = |id: &u8| self.all.iter().all(|caller| caller.id != *id);
        let id = (0..32).find(is_free).expect("few callers");
        self.all.push(Caller {
            id,
            kind,
            durable: false,
            failed: false,
            reported: false,
            sent: false,
            ended: false,
        });
        id
    }

    /// The last one to arrive was refused.
    pub fn leave(&mut self) {
        self.all.pop();
    }

    /// A flush is sent: returns which callers it covers.
    pub fn sent(&mut self, strict: bool) -> Result<u32, Violation> {
        let mut covers = 0;
        for caller in self.all.iter_mut().filter(|caller| !caller.ended) {
            if caller.sent && strict {
                return violated("coalescing", "a caller waits for a second flush");
            }
            caller.sent = true;
            covers |= 1 << caller.id;
        }
        Ok(covers)
    }

    /// A reset: flushes may have to be sent again.
    pub fn reset(&mut self) {
        self.all.iter_mut().for_each(|caller| caller.sent = false);
    }

    /// The host has finished a flush, which may have been reported to the driver.
    pub fn flushed(&mut self, covers: u32, success: bool, reported: bool) {
        for caller in &mut self.all {
            if covers & 1 << caller.id != 0 {
                caller.durable |= success;
                caller.failed |= !success;
                caller.reported |= !success && reported;
            }
        }
    }

    /// The engine ends a batch. Returns the synchronous callers in it, which are removed.
    pub fn end(&mut self, batch: &List, how: End) -> Result<Vec<u8>, Violation> {
        let mut woken = vec![];
        for &id in &batch.0 {
            let is_it = |caller: &Caller| caller.id == id && !caller.ended;
            let Some(at) = self.all.iter().position(is_it) else {
                return violated("once", format!("caller {id} ends a second time"));
            };
            let caller = &self.all[at];
            match how {
                End::Done if !caller.durable => {
                    return violated("durability", format!("caller {id} is not covered"));
                }
                End::Done if caller.reported => {
                    return violated("errors", format!("caller {id} does not get its error"));
                }
                End::Failed if !caller.failed => {
                    return violated("errors", format!("caller {id} fails without a reason"));
                }
                _ => (),
            }
            let is_late = |caller: &Caller| caller.kind == Kind::Bio && !caller.ended;
            match caller.kind {
                Kind::Bio if self.all[..at].iter().any(is_late) => {
                    return violated("order", format!("bio {id} overtakes another"));
                }
                Kind::Bio => self.all[at].ended = true,
                Kind::Sync => {
                    self.all.remove(at);
                    woken.push(id);
                }
            }
        }
        Ok(woken)
    }

    /// The work item completes the bios it was given.
    pub fn work(&mut self) -> Vec<u8> {
        let done = self.all.iter().filter(|caller| caller.ended);
        let done = done.map(|caller| caller.id).collect();
        self.all.retain(|caller| !caller.ended);
        done
    }
}
