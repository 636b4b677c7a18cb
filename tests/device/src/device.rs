// SPDX-License-Identifier: GPL-2.0

//! The device as QEMU's vhost-user frontend has it.

use crate::host::Host;
use crate::image::Range;
use crate::personality::{Personality, RING_PACKED};
use crate::ring::{Memory, Ring};
use std::fs::File;
use std::io::Result;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use vhost::vhost_user::message::{
    VhostUserMMap, VhostUserMMapFlags, VhostUserProtocolFeatures, VhostUserShMemConfig,
};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};
use vhost_user_backend::{VhostUserBackend, VringRwLock};
use vmm_sys_util::epoll::EventSet;

/// Bit 30: vhost-user's own.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// A device with one queue.
pub struct Device {
    personality: Box<dyn Personality>,
    host: Arc<Host>,
    memory: Memory,
    range: Range,
    region: Option<File>,
    features: u64,
    acked: AtomicU64,
    loaded: AtomicBool,
    frontend: Mutex<Option<Backend>>,
    serving: Mutex<()>,
}

impl Device {
    /// Makes a device; with a region its range is that, else a piece of the guest's memory.
    pub fn new(
        personality: Box<dyn Personality>,
        host: Arc<Host>,
        memory: Memory,
        range: Range,
        region: Option<File>,
        packed: bool,
    ) -> Self {
        Self {
            features: personality.features()
                | PROTOCOL_FEATURES
                | if packed { RING_PACKED } else { 0 },
            personality,
            host,
            memory,
            range,
            region,
            acked: AtomicU64::new(0),
            loaded: AtomicBool::new(false),
            frontend: Mutex::new(None),
            serving: Mutex::new(()),
        }
    }

    /// Fills the range once, as a mapping of the file would. QEMU has not started the guest's
    /// driver before.
    fn load(&self) {
        if !self.loaded.swap(true, Ordering::SeqCst) {
            self.host.load();
        }
    }

    /// Maps the region where the guest has it. QEMU unmaps it at each reset.
    fn map(&self) {
        let (Some(file), Some(frontend)) = (&self.region, self.frontend.lock().unwrap().clone())
        else {
            return;
        };
        let (host, file) = (self.host.clone(), file.try_clone().expect("region"));
        let map = VhostUserMMap {
            len: self.range.size as u64,
            flags: VhostUserMMapFlags::WRITABLE.bits(),
            ..Default::default()
        };
        // QEMU answers only after the message that it sends now.
        thread::spawn(move || host.note(&format!("map {:?}", frontend.shmem_map(&map, &file))));
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn acked_features(&self, features: u64) {
        self.acked.store(features, Ordering::SeqCst);
        self.host
            .note(&format!("features {:#x}", features & !PROTOCOL_FEATURES));
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        // QEMU demands BACKEND_REQ of a device with ACCESS_PLATFORM.
        let common = VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ;

        if self.region.is_some() {
            common | VhostUserProtocolFeatures::SHMEM
        } else {
            common
        }
    }

    fn set_event_idx(&self, _: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let (start, length) = self.personality.config(self.range);
        let bytes = [start.to_le_bytes(), length.to_le_bytes()].concat();

        (offset as usize..)
            .take(size as usize)
            .map(|at| bytes.get(at).copied().unwrap_or(0))
            .collect()
    }

    fn set_config(&self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn update_memory(&self, _: Memory) -> Result<()> {
        self.load();
        self.map();
        Ok(())
    }

    fn get_shmem_config(&self) -> Result<VhostUserShMemConfig> {
        let size = if self.region.is_some() {
            self.range.size as u64
        } else {
            0
        };

        Ok(VhostUserShMemConfig::new(u32::from(size != 0), &[size]))
    }

    fn set_backend_req_fd(&self, backend: Backend) {
        *self.frontend.lock().unwrap() = Some(backend);
    }

    fn stop_vring(&self, _: u32) -> Result<()> {
        if self.personality.finishes_before_reset() {
            drop(self.serving.lock());
        }
        if let Some(ring) = self.host.ring().as_mut() {
            ring.stop();
        }
        self.host.note("stop");
        Ok(())
    }

    fn handle_event(&self, _: u16, _: EventSet, vrings: &[VringRwLock], _: usize) -> Result<()> {
        let _serving = self.serving.lock();
        {
            let mut ring = self.host.ring();
            if !ring.as_ref().is_some_and(Ring::is_running) {
                let packed = self.acked.load(Ordering::SeqCst) & RING_PACKED != 0;
                *ring = Some(Ring::new(vrings[0].clone(), self.memory.clone(), packed));
            }
        }
        self.host.note("kick");
        self.personality.kick(&self.host);
        Ok(())
    }
}
