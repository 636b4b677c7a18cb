// SPDX-License-Identifier: GPL-2.0

//! Virtqueues.
//!
//! [`Device::find_vqs`](super::Device::find_vqs) gives the driver one [`Virtqueue`] per queue. It
//! is an owner: buffers move into it and out of it, it can be used from one place at a time (`&mut
//! self`, so a driver keeps it in the data of a lock), and dropping it quiesces the device and
//! drops the buffers that are left. The queues of a device are deleted together, exactly once,
//! when the last of them is dropped.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    queues::Queues,
    Buffer,
    Feature, //
};
use crate::{
    alloc::Flags,
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
    types::Opaque, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{
        self,
        NonNull, //
    },
};

/// A queue of buffers of type `B` between the driver and the device.
///
/// Dropping it may sleep: it quiesces the device, drops the buffers that are left, and deletes the
/// queues if it was the last of them. [Closing](Self::close) it returns the buffers instead.
///
/// # Invariants
///
/// - `vq` is valid until `live` of `queues` drops to zero, or for ever if they are orphaned.
/// - Every token in the queue is from `B::into_raw`.
pub struct Virtqueue<B: Buffer> {
    vq: NonNull<bindings::virtqueue>,
    queues: Arc<Queues>,
    _buffers: PhantomData<B>,
}

// SAFETY: A virtqueue can be used from any thread, one at a time, and `B: Send`.
unsafe impl<B: Buffer> Send for Virtqueue<B> {}
// SAFETY: Methods with `&self` only read what is constant or meant to be read without a lock.
unsafe impl<B: Buffer> Sync for Virtqueue<B> {}

impl<B: Buffer> Virtqueue<B> {
    /// Makes the owner of a queue.
    ///
    /// # Safety
    ///
    /// `vq` is an empty queue of the set `queues`, which counts it in `live`, and has no other
    /// owner.
    pub(super) unsafe fn new(vq: NonNull<bindings::virtqueue>, queues: Arc<Queues>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            vq,
            queues,
            _buffers: PhantomData,
        }
    }

    /// Makes `buffer` available to the device, which may use it at once, or only after a
    /// [`kick`](Self::kick).
    ///
    /// A full queue is not notified, unlike by C's `virtqueue_add_sgs()`: for some devices a
    /// notification without a new buffer is an error.
    ///
    /// The ring allocates, by `flags`, only with
    /// [`RING_INDIRECT_DESC`](Feature::RING_INDIRECT_DESC), the DMA layer only behind an IOMMU or
    /// bounce buffer. Any context that `flags` allow.
    ///
    /// # Errors
    ///
    /// The buffer comes back with [`ENOSPC`] if the queue is full, [`ENOMEM`] if it could not be
    /// mapped, [`EIO`] if the queue is broken.
    pub fn add(&mut self, buffer: B, flags: Flags) -> Result<(), (Error, B)> {
        let token = buffer.into_raw();
        // SAFETY: `token` is from `into_raw`.
        let (readable, writable) = unsafe { (B::readable(token), B::writable(token)) };
        let readable_sgs = u32::from(!readable.is_empty());
        let writable_sgs = u32::from(!writable.is_empty());

        let needed = if self.queues.vdev.has_feature(Feature::RING_INDIRECT_DESC) {
            1
        } else {
            readable_sgs + writable_sgs
        };

        let result = if self.free() < needed {
            Err(ENOSPC)
        } else {
            let entries = [Opaque::<bindings::scatterlist>::uninit(), Opaque::uninit()];
            let mut sgs = [ptr::null_mut(); 2];
            let used = [readable, writable]
                .into_iter()
                .filter(|part| !part.is_empty());

            for ((part, entry), sg) in used.zip(&entries).zip(&mut sgs) {
                // SAFETY: `entry` is writable; `part` is in the linear mapping by the safety
                // requirements of `Buffer`.
                unsafe {
                    bindings::sg_init_one(
                        entry.get(),
                        part.cast::<c_void>().as_ptr(),
                        part.len() as u32,
                    )
                };
                *sg = entry.get();
            }

            // SAFETY: The queue is valid and used from here only, by `&mut self`. The token is
            // unique and not null. The scatterlists are needed for the call only; the memory that
            // they describe stays valid until the token is taken back, by the safety requirements
            // of `Buffer`.
            to_result(unsafe {
                bindings::virtqueue_add_sgs(
                    self.vq.as_ptr(),
                    sgs.as_mut_ptr(),
                    readable_sgs,
                    writable_sgs,
                    token.as_ptr(),
                    flags.as_raw(),
                )
            })
        };

        // A packed ring returns EIO for a mapping that fails, and for nothing else while it works.
        let result = result.map_err(|err| {
            if err == EIO && !self.is_broken() {
                ENOMEM
            } else {
                err
            }
        });

        // SAFETY: On error the token did not get into the queue.
        result.map_err(|err| (err, unsafe { B::from_raw(token) }))
    }

    /// Takes the next buffer that the device has used, with the used length: the number of bytes
    /// that the device reports as written, which may be wrong.
    ///
    /// Returns [`None`] if there is none, or if the queue is broken. Any context.
    pub fn get(&mut self) -> Option<(B, u32)> {
        let mut len = 0;

        // SAFETY: The queue is valid and used from here only.
        let token = unsafe { bindings::virtqueue_get_buf(self.vq.as_ptr(), &mut len) };

        // SAFETY: By the type invariant the token is from `into_raw`; the ring returns each one
        // once, whatever the device writes to it.
        NonNull::new(token).map(|token| (unsafe { B::from_raw(token) }, len))
    }

    /// Notifies the device of the added buffers, unless it has suppressed notifications. To be
    /// called only after a buffer was added.
    ///
    /// Returns `false` if the queue is broken or the notification failed; a queue whose
    /// notification failed is broken from then on. Any context.
    #[must_use = "a queue whose notification failed is broken"]
    pub fn kick(&mut self) -> bool {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) }
    }

    /// The first half of [`kick`](Self::kick): returns whether the device is to be notified of the
    /// added buffers, by a [`notifier`](Self::notifier). Any context.
    #[must_use = "if `true`, a notification is to follow"]
    pub fn kick_prepare(&mut self) -> bool {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_kick_prepare(self.vq.as_ptr()) }
    }

    /// The second half of [`kick`](Self::kick), which needs no lock around the queue: the
    /// notification may take as long as an exit from the guest. The notifier is made while the lock
    /// is held, and may be used when it was released. Any context.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     sync::{
    ///         rcu,
    ///         SpinLockIrq, //
    ///     },
    ///     virtio::{
    ///         Buffer,
    ///         Notifier,
    ///         Virtqueue, //
    ///     }, //
    /// };
    ///
    /// fn send<B: Buffer + Unpin>(queue: &SpinLockIrq<Virtqueue<B>>, buffer: B) -> Result {
    ///     let rcu = rcu::read_lock();
    ///     let mut queue = queue.lock();
    ///
    ///     queue.add(buffer, GFP_ATOMIC).map_err(|(err, _buffer)| err)?;
    ///     let notifier = queue.kick_prepare().then(|| queue.notifier(&rcu));
    ///     drop(queue);
    ///
    ///     if notifier.is_none_or(Notifier::notify) {
    ///         Ok(())
    ///     } else {
    ///         Err(EIO)
    ///     }
    /// }
    /// ```
    pub fn notifier<'rcu>(&self, _guard: &'rcu rcu::Guard) -> Notifier<'rcu> {
        // INVARIANT: The queue is valid now, and the guard keeps it so.
        Notifier {
            vq: self.vq,
            _guard: PhantomData,
        }
    }

    /// Suppresses callbacks. The device may ignore that. Any context.
    pub fn disable_callback(&mut self) {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_disable_cb(self.vq.as_ptr()) }
    }

    /// Enables callbacks again. Returns `false` if buffers were used meanwhile, for which there may
    /// be no callback. Any context.
    #[must_use = "if `false`, used buffers are waiting"]
    pub fn enable_callback(&mut self) -> bool {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_enable_cb(self.vq.as_ptr()) }
    }

    /// Returns whether the queue is broken, by an error of the device or by
    /// [`break_device`](super::Device::break_device). Any context.
    pub fn is_broken(&self) -> bool {
        // SAFETY: The queue is valid; the flag is read without a lock by design.
        unsafe { bindings::virtqueue_is_broken(self.vq.as_ptr()) }
    }

    /// Returns whether the ring maps buffers for the device, through an IOMMU or bounce buffers,
    /// while they are in the queue. Any context.
    pub fn is_mapped(&self) -> bool {
        // SAFETY: The queue is valid.
        let dma = unsafe { bindings::virtqueue_dma_dev(self.vq.as_ptr()) };

        // Transports that map by themselves have no DMA device; Xen maps without the feature.
        !dma.is_null() || self.queues.vdev.has_feature(Feature::ACCESS_PLATFORM)
    }

    /// Returns the number of free descriptors.
    fn free(&self) -> u32 {
        // SAFETY: The queue is valid.
        unsafe { (*self.vq.as_ptr()).num_free }
    }

    /// Returns the number of descriptors in the ring. Any context.
    pub fn size(&self) -> u32 {
        // SAFETY: The queue is valid.
        unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) }
    }

    /// Takes back a buffer that the device has not used. The device must be quiesced. May sleep.
    fn detach_unused(&mut self) -> Option<B> {
        let state = self.queues.state.lock();

        if state.orphaned {
            // Buffers can be unmapped only as long as the device is there.
            return None;
        }

        // SAFETY: The queue is valid and quiesced, so the device does not use its buffers.
        let token = unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };

        // SAFETY: By the type invariant the token is from `into_raw`; it was detached just now, so
        // it is not handed out again.
        NonNull::new(token).map(|token| unsafe { B::from_raw(token) })
    }

    /// Quiesces the device and returns the buffers that are left. The queue is deleted when the
    /// returned value is dropped. May sleep.
    pub fn close(self) -> Closed<B> {
        self.queues.quiesce();
        // SAFETY: The queue is valid. It was broken to stop the driver and the device, and both
        // have stopped: the driver has given up its owner, and the device was reset.
        unsafe { bindings::__virtqueue_unbreak(self.vq.as_ptr()) };
        // INVARIANT: Quiesced above.
        Closed(self)
    }
}

impl<B: Buffer> Drop for Virtqueue<B> {
    fn drop(&mut self) {
        self.queues.quiesce();
        while self.detach_unused().is_some() {}
        self.queues.delete_one();
    }
}

/// A notification of the device that is still to be made, without the lock around the queue.
///
/// # Invariants
///
/// `vq` is valid: a queue is deleted only after an RCU grace period that began when its owner was
/// given up, and the guard with the lifetime `'rcu` was taken before.
#[must_use = "the device is not notified"]
pub struct Notifier<'rcu> {
    vq: NonNull<bindings::virtqueue>,
    _guard: PhantomData<&'rcu rcu::Guard>,
}

impl Notifier<'_> {
    /// Notifies the device. Any context.
    ///
    /// Returns `false` if the queue is broken, or if the notification failed; a queue whose
    /// notification failed is broken from then on. A queue that is being closed is broken, too.
    #[must_use = "a queue whose notification failed is broken"]
    pub fn notify(self) -> bool {
        // SAFETY: The queue is valid by the type invariant; notifying needs no serialization.
        unsafe { bindings::virtqueue_notify(self.vq.as_ptr()) }
    }
}

/// The buffers that are left in a queue that was [closed](Virtqueue::close): by
/// [`get`](Self::get) those that the device has used, and by the iterator the others.
///
/// Dropping it drops the buffers that are left. That and taking them may sleep.
///
/// # Invariants
///
/// The device is quiesced.
pub struct Closed<B: Buffer>(Virtqueue<B>);

impl<B: Buffer> Closed<B> {
    /// Takes the next buffer that the device had used, as [`Virtqueue::get`]. May sleep.
    ///
    /// To be called only while there is a buffer in the queue: a used element without a buffer
    /// breaks the queue.
    pub fn get(&mut self) -> Option<(B, u32)> {
        let queues = self.0.queues.clone();
        let state = queues.state.lock();

        if state.orphaned {
            // A buffer can be unmapped only as long as the device is there.
            return None;
        }
        self.0.get()
    }

    /// Deletes the queue without the buffers that are left, which stay allocated and mapped for
    /// good.
    ///
    /// For buffers that the device may still write although it was reset, which some hosts do. May
    /// sleep.
    pub fn leave(self) {
        let this = ManuallyDrop::new(self);

        this.0.queues.delete_one();
        // SAFETY: `this` is neither used any more nor dropped. Only this field has to be dropped.
        drop(unsafe { ptr::read(&this.0.queues) });
    }
}

impl<B: Buffer> Iterator for Closed<B> {
    type Item = B;

    fn next(&mut self) -> Option<B> {
        self.0.detach_unused()
    }
}
