// SPDX-License-Identifier: GPL-2.0

//! A virtio-pmem device as a vhost-user backend, with the behaviour of one of several hosts.
//!
//! ```text
//! pmem-device socket=S image=FILE journal=FILE size=BYTES personality=NAME [start=ADDRESS]
//!     [delay=MS] [packed=1] [read_only=1] [seed=N] [cut=N] [sync=1] [ops=N] [bytes=N] [lost=N]
//!     [late=N] [twice=N] [hold=FILE]
//! ```
//!
//! The device's range is a piece of the guest's memory (`start`) that its kernel leaves alone, or,
//! for a personality that has one, a shared memory region. The image changes by flushes alone. The
//! journal has a line for each event. With `sync` a flush ends with an fsync of the image, whose
//! failure is the flush's. At flush `cut` the power fails: some of the changed pages reach the
//! image, and nothing is answered any more. A read-only image never changes; the journal has what
//! the guest has stored nevertheless. While the file `hold` exists, the personalities `remote` and
//! `snapshot` hold an answer.

mod device;
mod host;
mod image;
mod limiter;
mod personality;
mod random;
mod ring;

use device::Device;
use host::Host;
use image::{Image, Journal, Range, Stores};
use random::Random;
use ring::Memory;
use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

/// The command line, as `name=value`.
pub struct Options(HashMap<String, String>);

impl Options {
    fn new(words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        words
            .map(|word| match word.split_once('=') {
                Some((name, value)) => Ok((name.into(), value.into())),
                None => Err(format!("{word}: write name=value").into()),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn text(&self, name: &str) -> Result<&str, Box<dyn Error>> {
        (self.0.get(name).map(String::as_str)).ok_or_else(|| format!("{name}= is missing").into())
    }

    /// Returns a number that may be left out.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Box<dyn Error>> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number
            .map(Some)
            .map_err(|error| format!("{name}={text}: {error}").into())
    }
}

/// Makes memory that is shared with the guest as a region of its own.
fn shared(size: usize) -> Result<(File, Memory), Box<dyn Error>> {
    let path = format!("/dev/shm/pmem-device-{}", std::process::id());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;

    fs::remove_file(&path)?;
    file.set_len(size as u64)?;
    let offset = FileOffset::new(file.try_clone()?, 0);
    let memory = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), size, Some(offset))])?;
    Ok((file, GuestMemoryAtomic::new(memory)))
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = Options::new(std::env::args().skip(1))?;
    let personality = personality::named(options.text("personality")?, &options)?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let size = options.number("size")?.ok_or("size= is missing")? as usize;
    let seed = options.number("seed")?.unwrap_or(1);
    let (region, pages, start) = if personality.has_region() {
        let (file, pages) = shared(size)?;
        (Some(file), pages, 0)
    } else {
        (
            None,
            memory.clone(),
            options.number("start")?.ok_or("start= is missing")?,
        )
    };
    let cut = options.number("cut")?.map(|at| (at, Random::new(seed)));
    let range = Range { start, size };
    let stores = match (options.number("read_only")?, personality.ends_at_stores()) {
        (Some(1), true) => Stores::Fatal,
        (Some(1), false) => Stores::Ignored,
        _ => Stores::Written,
    };
    let image = OpenOptions::new()
        .read(true)
        .write(stores == Stores::Written)
        .open(options.text("image")?)?;
    let host = Arc::new(Host::new(
        Duration::from_millis(options.number("delay")?.unwrap_or(0)),
        options.text("hold").ok().map(PathBuf::from),
        if options.number("sync")? == Some(1) {
            Some(image.try_clone()?)
        } else {
            None
        },
        pages,
        Image::new(image, range, cut, stores)?,
        Journal::new(File::create(options.text("journal")?)?),
    ));
    let packed = options.number("packed")? == Some(1);
    let device = Arc::new(Device::new(
        personality,
        host.clone(),
        memory.clone(),
        range,
        region,
        packed,
    ));
    let mut daemon = VhostUserDaemon::new("pmem".into(), device, memory)
        .map_err(|error| format!("vhost-user: {error:?}"))?;

    daemon
        .serve(options.text("socket")?)
        .map_err(|error| format!("vhost-user: {error:?}"))?;
    host.finish();
    // What is still in flight has lost its guest.
    std::process::exit(0)
}

fn main() {
    if let Err(error) = run() {
        eprintln!("pmem-device: {error}");
        std::process::exit(1);
    }
}
