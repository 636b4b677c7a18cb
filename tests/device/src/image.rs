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
}

impl Image {
    /// Reads a file. At flush `cut` the power fails.
    pub fn new(mut file: File, range: Range, cut: Option<(u64, Random)>) -> io::Result<Self> {
        let mut content = vec![0; range.size];

        file.read_exact(&mut content)?;
        Ok(Self {
            range,
            file,
            content,
            flushes: 0,
            cut,
        })
    }

    /// Copies the file to the guest's memory, as if it were mapped there.
    pub fn load(&self, memory: &GuestMemoryMmap) {
        memory
            .write_slice(&self.content, GuestAddress(self.range.start))
            .expect("the range is in the guest's memory");
    }

    /// Writes all changed pages to the file.
    ///
    /// A flush that the power failure hits writes some of them, as a host may do at any time, and
    /// returns whether the power is still on.
    pub fn flush(&mut self, memory: &GuestMemoryMmap, journal: &mut Journal) -> bool {
        let mut pages = 0;
        let mut block = vec![0; BLOCK];

        self.flushes += 1;
        let mut chance = match &self.cut {
            Some((at, random)) if self.flushes >= *at => Some(random.clone()),
            _ => None,
        };

        for offset in (0..self.range.size).step_by(BLOCK) {
            let block = &mut block[..BLOCK.min(self.range.size - offset)];
            let content = &mut self.content[offset..offset + block.len()];

            memory
                .read_slice(block, GuestAddress(self.range.start + offset as u64))
                .expect("the range is in the guest's memory");
            if block == content {
                continue;
            }
            for (index, (new, old)) in
                (block.chunks(PAGE).zip(content.chunks_mut(PAGE))).enumerate()
            {
                if new == old || chance.as_mut().is_some_and(|random| random.below(2) == 0) {
                    continue;
                }
                self.file
                    .write_all_at(new, (offset + index * PAGE) as u64)
                    .expect("image");
                old.copy_from_slice(new);
                pages += 1;
            }
        }
        let word = if chance.is_some() { "cut" } else { "flush" };
        journal.note(&format!("{word} {} {pages}", self.flushes));
        chance.is_none()
    }
}
