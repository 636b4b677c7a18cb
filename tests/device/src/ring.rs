// SPDX-License-Identifier: GPL-2.0

//! The virtqueue, split or packed. A host may put what it likes into it.
//!
//! The split ring is virtio-queue's. That crate has no packed ring, so it is here.

use std::sync::atomic::Ordering;
use vhost_user_backend::{VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

/// The guest's memory.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

const NEXT: u16 = 1 << 0;
const WRITE: u16 = 1 << 1;
const INDIRECT: u16 = 1 << 2;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// The driver's wish in a packed ring.
const NO_INTERRUPTS: u16 = 1;
const INTERRUPT_AT: u16 = 2;

/// A piece of a buffer.
#[derive(Clone, Copy)]
struct Part {
    address: u64,
    len: u32,
    flags: u16,
}

/// A buffer that the driver has made available.
#[derive(Clone)]
pub struct Request {
    /// The identifier with which it is returned.
    pub id: u16,
    /// The type of the request, if its first part is that of one.
    pub kind: Option<u32>,
    /// Where the status goes, if there is room for it.
    pub status: Option<GuestAddress>,
    /// How much room there is.
    pub room: u32,
    descriptors: u16,
}

/// A position in a packed ring.
#[derive(Clone, Copy)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    fn from_base(base: u16) -> Self {
        Self {
            index: base & 0x7fff,
            wrap: base & 0x8000 != 0,
        }
    }

    fn advance(&mut self, count: u16, size: u16) {
        self.index += count;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }

    /// Returns the flags of a descriptor here that is the device's turn to use.
    fn is_available(self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.wrap && (flags & USED != 0) != self.wrap
    }
}

/// The device's side of the virtqueue.
pub struct Ring {
    vring: VringRwLock,
    memory: Memory,
    packed: bool,
    running: bool,
    taken: bool,
    avail: Place,
    used: Place,
    /// Where the driver's interrupts were last considered.
    signalled: Place,
}

impl Ring {
    /// Attaches to a virtqueue.
    pub fn new(vring: VringRwLock, memory: Memory, packed: bool) -> Self {
        let start = Place::from_base(vring.queue_next_avail());

        Self {
            vring,
            memory,
            packed,
            running: true,
            taken: false,
            avail: start,
            used: start,
            signalled: start,
        }
    }

    /// Stops the ring; its place is forgotten.
    pub fn stop(&mut self) {
        self.running = false;
    }

    /// Returns whether a request was taken.
    pub fn has_taken(&self) -> bool {
        self.taken
    }

    /// Returns whether a request can be taken.
    pub fn has_request(&mut self) -> bool {
        if !self.running {
            return false;
        }
        if self.packed {
            return self.is_next_available();
        }
        let memory = self.memory.memory();
        let mut vring = self.vring.get_mut();
        let queue = vring.get_queue_mut();
        let next = queue.next_avail();

        (queue.avail_idx(&*memory, Ordering::Acquire)).is_ok_and(|index| index.0 != next)
    }

    /// Returns whether the ring is the driver's present one.
    pub fn is_running(&self) -> bool {
        self.running
    }

    fn read<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory
            .memory()
            .read_obj(GuestAddress(address))
            .unwrap_or_else(|_| vm_memory::ByteValued::zeroed())
    }

    fn write<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        let _ = self.memory.memory().write_obj(value, GuestAddress(address));
    }

    fn size(&self) -> u16 {
        self.vring.get_ref().get_queue().size()
    }

    /// Takes the next request.
    pub fn take(&mut self) -> Option<Request> {
        if !self.running {
            return None;
        }
        let (id, descriptors, parts) = if self.packed {
            self.take_packed()?
        } else {
            self.take_split()?
        };
        self.taken = true;
        let (kind, status, room) = match parts[..] {
            [request, status] => (
                (request.flags & WRITE == 0 && request.len == 4)
                    .then(|| u32::from_le(self.read(request.address))),
                (status.flags & WRITE != 0 && status.len >= 4)
                    .then_some(GuestAddress(status.address)),
                status.len,
            ),
            _ => (None, None, 0),
        };
        Some(Request {
            id,
            kind,
            status,
            room,
            descriptors,
        })
    }

    fn take_split(&mut self) -> Option<(u16, u16, Vec<Part>)> {
        let memory = self.memory.memory();
        let mut vring = self.vring.get_mut();
        let chain = vring.get_queue_mut().pop_descriptor_chain(memory)?;
        let id = chain.head_index();
        let parts = chain
            .map(|part| Part {
                address: part.addr().0,
                len: part.len(),
                flags: part.flags(),
            })
            .collect();
        Some((id, 1, parts))
    }

    fn descriptor(&self, table: u64, index: u16) -> (Part, u16) {
        let raw: [u8; 16] = self
            .read::<u128>(table + 16 * u64::from(index))
            .to_le_bytes();
        let number = |from: usize| u16::from_le_bytes([raw[from], raw[from + 1]]);
        let part = Part {
            address: u64::from_le_bytes(raw[..8].try_into().unwrap()),
            len: u32::from_le_bytes(raw[8..12].try_into().unwrap()),
            flags: number(14),
        };
        (part, number(12))
    }

    fn is_next_available(&self) -> bool {
        let table = self.vring.get_ref().get_queue().desc_table();
        let first = self.read::<u16>(table + 16 * u64::from(self.avail.index) + 14);

        self.avail.is_available(u16::from_le(first))
    }

    fn take_packed(&mut self) -> Option<(u16, u16, Vec<Part>)> {
        let (table, size) = (self.vring.get_ref().get_queue().desc_table(), self.size());

        if !self.is_next_available() {
            return None;
        }
        std::sync::atomic::fence(Ordering::Acquire);

        let (mut parts, mut count) = (Vec::new(), 0);
        loop {
            let (part, number) = self.descriptor(table, self.avail.index);
            self.avail.advance(1, size);
            count += 1;
            if part.flags & INDIRECT != 0 {
                let entries = (part.len / 16).min(u32::from(size)) as u16;
                parts.extend((0..entries).map(|entry| self.descriptor(part.address, entry).0));
            } else {
                parts.push(part);
            }
            if part.flags & NEXT == 0 || count == size {
                return Some((number, count, parts)); // the last descriptor has the identifier
            }
        }
    }

    /// Returns a request to the driver, with a length that need not be true.
    pub fn put(&mut self, request: &Request, len: u32) {
        if self.packed {
            let table = self.vring.get_ref().get_queue().desc_table();
            let size = self.size();
            let at = table + 16 * u64::from(self.used.index);
            let flags = if self.used.wrap { AVAIL | USED } else { 0 } | WRITE;

            self.write(at + 8, len.to_le());
            self.write(at + 12, request.id.to_le());
            std::sync::atomic::fence(Ordering::Release);
            self.write(at + 14, flags.to_le());
            self.used.advance(request.descriptors, size);
        } else if self.vring.add_used(request.id, len).is_err() {
            // virtio-queue refuses identifiers that are out of range.
            let mut vring = self.vring.get_mut();
            let (ring, size, next) = {
                let queue = vring.get_queue();
                (queue.used_ring(), queue.size(), queue.next_used())
            };
            let at = ring + 4 + 8 * u64::from(next % size);

            self.write(at, u32::from(request.id).to_le());
            self.write(at + 4, len.to_le());
            vring.get_queue_mut().set_next_used(next.wrapping_add(1));
            std::sync::atomic::fence(Ordering::Release);
            self.write(ring + 2, next.wrapping_add(1).to_le());
        }
    }

    /// Moves the used index by some entries that were never written.
    pub fn jump(&mut self, count: u16) {
        if self.packed {
            let size = self.size();
            self.used.advance(count % size, size);
        } else {
            let mut vring = self.vring.get_mut();
            let (ring, next) = {
                let queue = vring.get_queue();
                (queue.used_ring(), queue.next_used().wrapping_add(count))
            };
            vring.get_queue_mut().set_next_used(next);
            self.write(ring + 2, next.to_le());
        }
    }

    /// Interrupts the driver unless it does not want to be.
    pub fn notify(&mut self) {
        let wanted = if self.packed {
            self.wants_packed()
        } else {
            self.vring.get_mut().needs_notification().unwrap_or(true)
        };
        if wanted {
            self.interrupt();
        }
    }

    fn wants_packed(&mut self) -> bool {
        let event = self.vring.get_ref().get_queue().avail_ring();
        let size = self.size();
        let old = std::mem::replace(&mut self.signalled, self.used);

        std::sync::atomic::fence(Ordering::SeqCst);
        match u16::from_le(self.read::<u16>(event + 2)) & 3 {
            NO_INTERRUPTS => false,
            INTERRUPT_AT => {
                let at = Place::from_base(u16::from_le(self.read(event)));
                // Distances from the present place, backwards.
                let back = |place: Place| {
                    (self.used.index
                        + if place.wrap == self.used.wrap {
                            0
                        } else {
                            size
                        })
                    .wrapping_sub(place.index)
                };
                back(at).wrapping_sub(1) < back(old)
            }
            _ => true,
        }
    }

    /// Interrupts the driver.
    pub fn interrupt(&self) {
        let _ = self.vring.signal_used_queue();
    }

    /// Asks the driver to kick again; returns whether requests have arrived meanwhile.
    pub fn rearm(&mut self) -> bool {
        !self.packed && self.running && self.vring.enable_notification().unwrap_or(false)
    }

    /// Writes the status of a request.
    pub fn status(&self, request: &Request, status: u32) {
        if let Some(address) = request.status {
            self.write(address.0, status.to_le());
        }
    }
}
