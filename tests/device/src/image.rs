// SPDX-License-Identifier: GPL-2.0

//! The host's file. It changes by flushes alone, so data that was acknowledged and is not in it
//! was acknowledged wrongly.

use crate::random::Random;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const PAGE: usize = 4096;

/// Pages that are compared at a time.
const BLOCK: usize = 64 * PAGE;

/// The device's range in the guest's memory.
#[derive(Clone, Copy)]
pub struct Range {
    /// The guest's address.
    pub start: u64,
    /// In bytes.
    pub size: usize,
}

/// What becomes of the guest's stores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stores {
    /// A flush writes them to the file.
    Written,
    /// The file is read-only, and a flush succeeds.
    Ignored,
    /// The file is read-only, and the flush that finds them is the machine's end.
    Fatal,
}

/// What happened, a line each: the seconds since the start, a word, numbers.
pub struct Journal {
    file: File,
    begin: Instant,
}

impl Journal {
    /// Begins a journal in an empty file.
    pub fn new(file: File) -> Self {
        Self {
            file,
            begin: Instant::now(),
        }
    }

    /// Adds a line. Readers get whole lines only.
    pub fn note(&mut self, text: &str) {
        let line = format!("{:.6} {text}\n", self.begin.elapsed().as_secs_f64());

        self.file.write_all(line.as_bytes()).expect("journal");
    }
}

/// The host's file and what it contains.
pub struct Image {
    range: Range,
    file: File,
    content: Vec<u8>,
    flushes: u64,
    cut: Option<(u64, Random)>,
    stores: Stores,
}

impl Image {
    /// Reads a file. At flush `cut` the power fails.
    pub fn new(
        mut file: File,
        range: Range,
        cut: Option<(u64, Random)>,
        stores: Stores,
    ) -> io::Result<Self> {
        let mut content = vec![0; range.size];

        file.read_exact(&mut content)?;
        Ok(Self {
            range,
            file,
            content,
            flushes: 0,
            cut,
            stores,
        })
    }

    /// The size of the range.
    pub fn size(&self) -> usize {
        self.range.size
    }

    /// Copies the file to the guest's memory, as if it were mapped there.
    pub fn load(&self, memory: &GuestMemoryMmap) {
        memory
            .write_slice(&self.content, GuestAddress(self.range.start))
            .expect("the range is in the guest's memory");
    }

    /// Calls `f` with each page that differs from the file: its offset, its content in the range,
    /// and that in the file, which `f` may change.
    fn each_changed(
        range: Range,
        content: &mut [u8],
        memory: &GuestMemoryMmap,
        mut f: impl FnMut(usize, &[u8], &mut [u8]),
    ) {
        let mut block = vec![0; BLOCK];

        for (index, content) in content.chunks_mut(BLOCK).enumerate() {
            let (offset, block) = (index * BLOCK, &mut block[..content.len()]);

            memory
                .read_slice(block, GuestAddress(range.start + offset as u64))
                .expect("the range is in the guest's memory");
            if block == content {
                continue;
            }
            for (index, (new, old)) in
                (block.chunks(PAGE).zip(content.chunks_mut(PAGE))).enumerate()
            {
                if new != old {
                    f(offset + index * PAGE, new, old);
                }
            }
        }
    }

    /// Notes how many pages of a read-only range the guest has changed; returns whether there are
    /// any.
    pub fn find_stores(&mut self, memory: &GuestMemoryMmap, journal: &mut Journal) -> bool {
        let mut pages = 0;

        if self.stores != Stores::Written {
            Self::each_changed(self.range, &mut self.content, memory, |_, _, _| pages += 1);
        }
        if pages > 0 {
            journal.note(&format!("stores {pages}"));
        }
        pages > 0
    }

    /// Writes all changed pages to the file.
    ///
    /// A flush that the power failure hits writes some of them, as a host may do at any time, and
    /// returns whether the machine still runs.
    pub fn flush(&mut self, memory: &GuestMemoryMmap, journal: &mut Journal) -> bool {
        let mut pages = 0;

        self.flushes += 1;
        if self.stores != Stores::Written {
            journal.note(&format!("flush {} 0", self.flushes));
            return !self.find_stores(memory, journal) || self.stores == Stores::Ignored;
        }
        let mut chance = match &self.cut {
            Some((at, random)) if self.flushes >= *at => Some(random.clone()),
            _ => None,
        };

        Self::each_changed(self.range, &mut self.content, memory, |offset, new, old| {
            if chance.as_mut().is_none_or(|random| random.below(2) != 0) {
                self.file.write_all_at(new, offset as u64).expect("image");
                old.copy_from_slice(new);
                pages += 1;
            }
        });
        let word = if chance.is_some() { "cut" } else { "flush" };
        journal.note(&format!("{word} {} {pages}", self.flushes));
        chance.is_none()
    }
}
