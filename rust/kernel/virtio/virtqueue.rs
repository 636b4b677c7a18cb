// SPDX-License-Identifier: GPL-2.0

//! Virtqueues.
//!
//! A [`Virtqueue`] is the driver's access to one queue: buffers move into it and out of it, and it
//! can be used from one place at a time (`&mut self`, so a driver keeps it in the data of a lock).
//! The queue itself belongs to the bus, as a part of the device's set of queues, because the set
//! often ends before its binding does: it is deleted and found again in each suspend, reset and
//! recovery. So the access is revoked, as by [`Revocable`](crate::revocable::Revocable): an RCU
//! grace period ends what uses the queue at that moment, and later uses have no effect. A lifetime
//! could not end it in a suspend; and work items, timers and the callbacks of other subsystems,
//! which use queues, do not carry one.
//!
//! A [`Virtqueue`] that is dropped, leaked or kept too long does no harm. Its buffers are not
//! freed, because only the driver can decide whether the device still uses them after a reset, as
//! some do: it takes them back from the [stopped](super::Stopped) queue.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    buffer::Segments,
    Buffer,
    Segmented, //
};
use crate::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        rcu,
        Arc, //
    }, //
};
use core::{
    ffi::c_void,
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};

/// One queue of a set, shared by its [`Virtqueue`] and the set.
///
/// # Invariants
///
/// - If `is_live`, `vq` is a valid queue. It stays valid for an RCU grace period after `is_live`
///   has become false.
/// - If `is_stopped`, `vq` is a valid queue that neither the device nor a callback uses.
/// - Every token in the queue is from `into_raw` of the buffer type of its only [`Virtqueue`].
pub(super) struct Ring {
    vq: Atomic<*mut bindings::virtqueue>,
    is_live: Atomic<bool>,
    is_stopped: Atomic<bool>,
    /// For comparisons only.
    vdev: *const bindings::virtio_device,
    // These do not change while the queue is live.
    size: Atomic<u32>,
    is_mapped: Atomic<bool>,
    has_indirect: Atomic<bool>,
    /// How many buffers are in the queue.
    buffers: Atomic<u32>,
}

// SAFETY: All fields are atomic, or constant and not dereferenced.
unsafe impl Send for Ring {}
// SAFETY: As above.
unsafe impl Sync for Ring {}

impl Ring {
    pub(super) fn new(vdev: *const bindings::virtio_device) -> Result<Arc<Self>> {
        // INVARIANT: There is no queue yet.
        let ring = Self {
            vq: Atomic::new(ptr::null_mut()),
            is_live: Atomic::new(false),
            is_stopped: Atomic::new(false),
            vdev,
            size: Atomic::new(0),
            is_mapped: Atomic::new(false),
            has_indirect: Atomic::new(false),
            buffers: Atomic::new(0),
        };

        Ok(Arc::new(ring, GFP_KERNEL)?)
    }

    /// Gives the driver access to a queue, which `maps` buffers or takes `indirect` descriptors by
    /// the device's features.
    ///
    /// # Safety
    ///
    /// `vq` is valid and empty. It stays valid until [`close`](Self::close), and is stopped before.
    pub(super) unsafe fn open(&self, vq: *mut bindings::virtqueue, maps: bool, indirect: bool) {
        // SAFETY: `vq` is valid.
        let (size, dma) = unsafe {
            (
                bindings::virtqueue_get_vring_size(vq),
                bindings::virtqueue_dma_dev(vq),
            )
        };

        self.size.store(size, Relaxed);
        // Transports that map by themselves have no DMA device; Xen maps without the feature.
        self.is_mapped.store(maps || !dma.is_null(), Relaxed);
        self.has_indirect.store(indirect, Relaxed);
        self.vq.store(vq, Relaxed);
        // INVARIANT: By the safety requirements.
        self.is_live.store(true, Release);
    }

    /// Revokes the driver's access; what uses the queue now has ended after a grace period.
    pub(super) fn revoke(&self) {
        self.is_live.store(false, Relaxed);
    }

    /// Gives the task access that has stopped the device.
    ///
    /// # Safety
    ///
    /// The ring was open, and was revoked a grace period ago. The device does not use the queue.
    pub(super) unsafe fn stop(&self) {
        // A queue that was broken returns no buffers.
        //
        // SAFETY: The queue is valid by the safety requirements. It was broken to stop the device
        // and the driver, which both have stopped.
        unsafe { bindings::__virtqueue_unbreak(self.vq.load(Relaxed)) };
        // INVARIANT: By the safety requirements.
        self.is_stopped.store(true, Relaxed);
    }

    /// Ends all access. Returns how many buffers are left.
    pub(super) fn close(&self) -> u32 {
        self.is_stopped.store(false, Relaxed);
        self.buffers.load(Relaxed)
    }

    /// Counts a buffer that was added or taken. Only the one user of the queue does that.
    fn count(&self, change: i32) {
        let buffers = self.buffers.load(Relaxed);

        self.buffers
            .store(buffers.wrapping_add_signed(change), Relaxed);
    }
}

/// The access to a queue of buffers of type `B` between the driver and the device.
///
/// Where it says so, a method has no effect if the queue is gone: not found yet, stopped, or
/// deleted with its device.
///
/// Dropping it ends the access, in any context. Buffers that the device has stay allocated for
/// good.
///
/// # Invariants
///
/// No other object uses the queue of `ring`, except the task that has stopped it.
#[doc(alias = "virtqueue")]
pub struct Virtqueue<B: Buffer> {
    ring: Arc<Ring>,
    /// The position in the used ring at which a poll begins. It is one of this ring, because a
    /// packed ring is read there.
    position: Option<c_uint>,
    // It gives and takes buffers, which are `Send`; it has none.
    _buffers: PhantomData<fn(B) -> B>,
}

impl<B: Buffer> Virtqueue<B> {
    /// Makes the access to the queue of `ring`, which must be the only one.
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        // INVARIANT: By the requirement above.
        Self {
            ring,
            position: None,
            _buffers: PhantomData,
        }
    }

    /// Returns the queue, unless it is gone.
    fn live<'rcu>(&self, _guard: &'rcu rcu::Guard) -> Option<Live<'rcu>> {
        if !self.ring.is_live.load(Acquire) {
            return None;
        }
        // INVARIANT: The queue is valid now, and the guard keeps it so.
        NonNull::new(self.ring.vq.load(Relaxed)).map(|vq| Live(vq, PhantomData))
    }

    /// Makes `buffer` available to the device, which may use it at once, or only after a
    /// [`kick`](Self::kick).
    ///
    /// A full queue is not notified, unlike by C's `virtqueue_add_sgs()`: for some devices a
    /// notification without a new buffer is an error.
    ///
    /// The ring allocates, with [`GFP_ATOMIC`], only with
    /// [`RING_INDIRECT_DESC`](super::Feature::RING_INDIRECT_DESC), the DMA layer only behind an
    /// IOMMU or bounce buffer.
    ///
    /// # Context
    ///
    /// Any.
    ///
    /// # Errors
    ///
    /// The buffer comes back with
    /// - [`ENODEV`] if the queue is gone,
    /// - [`EIO`] if it is broken,
    /// - [`ENOSPC`] if it is full,
    /// - [`ENOMEM`] if the buffer could not be mapped,
    /// - [`EINVAL`] if it has no segments, or more than [`Segments::MAX`].
    ///
    /// # Examples
    ///
    /// A buffer that the device has cannot be used:
    ///
    /// ```ignore,compile_fail,E0382
    /// use kernel::virtio::{
    ///     Buffer,
    ///     Virtqueue, //
    /// };
    ///
    /// fn send<B: Buffer>(queue: &mut Virtqueue<B>, buffer: B) -> B {
    ///     let _ = queue.add(buffer);
    ///     buffer
    /// }
    /// ```
    #[doc(alias("add_sgs", "virtqueue_add_sgs"))]
    pub fn add(&mut self, buffer: B) -> Result<(), (Error, B)> {
        let token = buffer.into_raw();

        self.add_token(token)
            // SAFETY: On error the token did not get into the queue.
            .map_err(|err| (err, unsafe { B::from_raw(token) }))
    }

    fn add_token(&mut self, token: NonNull<B::Segments>) -> Result {
        let guard = rcu::read_lock();
        let vq = self.live(&guard).ok_or(ENODEV)?;
        let mut segments = Segments::new();

        // SAFETY: `token` is from `into_raw`, and is not used otherwise.
        unsafe { B::Segments::readable(token, &mut segments) };
        let readable = segments.len();

        // SAFETY: As above.
        unsafe { B::Segments::writable(token, &mut segments) };
        let len = segments.len();
        let needed = if self.ring.has_indirect.load(Relaxed) {
            1
        } else {
            segments.descriptors()
        };
        let lists = segments.lists().ok_or(EINVAL)?;

        if (vq.free() as usize) < needed {
            return Err(ENOSPC);
        }

        // SAFETY: The queue is valid and used from here only, by `&mut self`. The token is unique
        // and not null. The scatterlists are needed for the call only; the memory that they
        // describe stays valid until the token is taken back, by the safety requirements of
        // `Buffer` and `Segmented`.
        let result = to_result(unsafe {
            bindings::virtqueue_add_sgs(
                vq.as_ptr(),
                lists,
                readable as u32,
                (len - readable) as u32,
                token.as_ptr().cast::<c_void>(),
                GFP_ATOMIC.as_raw(),
            )
        });

        // A packed ring returns EIO for a mapping that fails, and for nothing else while it works.
        result.map_err(|err| {
            if err == EIO && !vq.is_broken() {
                ENOMEM
            } else {
                err
            }
        })?;
        self.ring.count(1);
        Ok(())
    }

    /// Takes the next buffer that the device has used, with the used length: the number of bytes
    /// that the device reports as written, which may be wrong.
    ///
    /// Returns [`None`] if there is none, or if the queue is broken or gone.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias("get_buf", "virtqueue_get_buf"))]
    pub fn get(&mut self) -> Option<(B, u32)> {
        let guard = rcu::read_lock();
        let vq = self.live(&guard)?;

        // SAFETY: The queue is valid and used from here only.
        unsafe { self.get_from(vq.as_ptr()) }
    }

    /// # Safety
    ///
    /// `vq` is the ring's queue, and is used from here only.
    unsafe fn get_from(&mut self, vq: *mut bindings::virtqueue) -> Option<(B, u32)> {
        let mut len = 0;

        // SAFETY: By the safety requirements.
        let token = NonNull::new(unsafe { bindings::virtqueue_get_buf(vq, &mut len) })?;

        self.ring.count(-1);
        // SAFETY: By the type invariant the token is from `into_raw`; the ring returns each one
        // once, whatever the device writes to it.
        Some((unsafe { B::from_raw(token.cast()) }, len))
    }

    /// Returns the stopped queue of a device, if this is one.
    fn stopped(&self, vdev: *const bindings::virtio_device) -> Option<*mut bindings::virtqueue> {
        let is_stopped = ptr::eq(self.ring.vdev, vdev) && self.ring.is_stopped.load(Relaxed);

        is_stopped.then(|| self.ring.vq.load(Relaxed))
    }

    /// Takes the next buffer that the device had used before its queues were stopped.
    ///
    /// # Safety
    ///
    /// The caller is in the core context of `vdev`.
    pub(super) unsafe fn get_stopped(
        &mut self,
        vdev: *const bindings::virtio_device,
    ) -> Option<(B, u32)> {
        let vq = self.stopped(vdev)?;

        // A used element without a buffer breaks the queue.
        if self.ring.buffers.load(Relaxed) == 0 {
            return None;
        }
        // SAFETY: Only the core context of `vdev` uses and deletes its stopped queues.
        unsafe { self.get_from(vq) }
    }

    /// Takes a buffer that the device had not used before its queues were stopped.
    ///
    /// # Safety
    ///
    /// The caller is in the core context of `vdev`.
    pub(super) unsafe fn detach_stopped(
        &mut self,
        vdev: *const bindings::virtio_device,
    ) -> Option<B> {
        let vq = self.stopped(vdev)?;

        // SAFETY: Only the core context of `vdev` uses and deletes its stopped queues, and the
        // device does not use them.
        let token = NonNull::new(unsafe { bindings::virtqueue_detach_unused_buf(vq) })?;

        self.ring.count(-1);
        // SAFETY: By the type invariant the token is from `into_raw`; it was detached just now, so
        // it is not handed out again.
        Some(unsafe { B::from_raw(token.cast()) })
    }

    /// Notifies the device of the added buffers, unless it has suppressed notifications. To be
    /// called only after a buffer was added.
    ///
    /// Returns `false` if the queue is gone or broken, or if the notification failed; a queue whose
    /// notification failed is broken from then on.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtqueue_kick")]
    #[must_use = "a queue whose notification failed is broken"]
    #[inline]
    pub fn kick(&mut self) -> bool {
        let guard = rcu::read_lock();

        // SAFETY: The queue is valid and used from here only.
        self.live(&guard)
            .is_some_and(|vq| unsafe { bindings::virtqueue_kick(vq.as_ptr()) })
    }

    /// The first half of [`kick`](Self::kick): returns whether the device is to be notified of the
    /// added buffers, by a [`notifier`](Self::notifier).
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtqueue_kick_prepare")]
    #[must_use = "if `true`, a notification is to follow"]
    #[inline]
    pub fn kick_prepare(&mut self) -> bool {
        let guard = rcu::read_lock();

        // SAFETY: The queue is valid and used from here only.
        self.live(&guard)
            .is_some_and(|vq| unsafe { bindings::virtqueue_kick_prepare(vq.as_ptr()) })
    }

    /// The second half of [`kick`](Self::kick), which needs no lock around the queue: the
    /// notification may take as long as an exit from the guest. The notifier is made while the lock
    /// is held, and may be used when it was released.
    ///
    /// # Context
    ///
    /// Any context.
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
    /// fn send<B: Buffer>(queue: &SpinLockIrq<Virtqueue<B>>, buffer: B) -> Result {
    ///     let rcu = rcu::read_lock();
    ///     let mut queue = queue.lock();
    ///
    ///     queue.add(buffer).map_err(|(err, _buffer)| err)?;
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
    #[inline]
    pub fn notifier<'rcu>(&self, guard: &'rcu rcu::Guard) -> Notifier<'rcu> {
        Notifier(self.live(guard))
    }

    /// Suppresses callbacks. The device may ignore that.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias("disable_cb", "virtqueue_disable_cb"))]
    #[inline]
    pub fn disable_callback(&mut self) {
        let guard = rcu::read_lock();

        if let Some(vq) = self.live(&guard) {
            // SAFETY: The queue is valid and used from here only.
            unsafe { bindings::virtqueue_disable_cb(vq.as_ptr()) }
        }
    }

    /// Enables callbacks again. Returns `false` if buffers were used meanwhile, for which there may
    /// be no callback.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias("enable_cb", "virtqueue_enable_cb"))]
    #[must_use = "if `false`, used buffers are waiting"]
    #[inline]
    pub fn enable_callback(&mut self) -> bool {
        let guard = rcu::read_lock();

        // SAFETY: The queue is valid and used from here only.
        self.live(&guard)
            .is_none_or(|vq| unsafe { bindings::virtqueue_enable_cb(vq.as_ptr()) })
    }

    /// Enables callbacks again, but asks the device to delay the next one until it has used most of
    /// the buffers. Returns `false` as [`enable_callback`](Self::enable_callback).
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias("enable_cb_delayed", "virtqueue_enable_cb_delayed"))]
    #[must_use = "if `false`, used buffers are waiting"]
    #[inline]
    pub fn enable_callback_delayed(&mut self) -> bool {
        let guard = rcu::read_lock();

        // SAFETY: The queue is valid and used from here only.
        self.live(&guard)
            .is_none_or(|vq| unsafe { bindings::virtqueue_enable_cb_delayed(vq.as_ptr()) })
    }

    /// Enables callbacks again, and returns at once. Whether buffers were used meanwhile, for which
    /// there may be no callback, is found by [`poll`](Self::poll), also later.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias("enable_cb_prepare", "virtqueue_enable_cb_prepare"))]
    #[inline]
    pub fn enable_callback_prepare(&mut self) {
        let guard = rcu::read_lock();

        self.position = self
            .live(&guard)
            // SAFETY: The queue is valid and used from here only.
            .map(|vq| unsafe { bindings::virtqueue_enable_cb_prepare(vq.as_ptr()) });
    }

    /// Returns whether the device has used buffers that had not been taken at the last
    /// [`enable_callback_prepare`](Self::enable_callback_prepare). Returns `false` if the queue is
    /// broken or gone.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtqueue_poll")]
    #[inline]
    pub fn poll(&self) -> bool {
        let guard = rcu::read_lock();

        self.live(&guard)
            .zip(self.position)
            // SAFETY: The queue is valid, and the position is from the call above.
            .is_some_and(|(vq, at)| unsafe { bindings::virtqueue_poll(vq.as_ptr(), at) })
    }

    /// Resets the queue alone, and drops the buffers that are in it.
    ///
    /// # Safety
    ///
    /// The caller is in the core context of `vdev`.
    pub(super) unsafe fn reset(&mut self, vdev: *const bindings::virtio_device) -> Result {
        let ring = &*self.ring;

        if !ptr::eq(ring.vdev, vdev) || !ring.is_live.load(Acquire) {
            return Err(ENODEV);
        }

        let vq = ring.vq.load(Relaxed);
        // A notifier may be left, and must not reach the queue during the reset.
        ring.revoke();
        rcu::synchronize_rcu();

        // SAFETY: The queue is valid: only the core context of `vdev` stops and deletes it. It is
        // used from here only, and its tokens are from `into_raw` of `B`.
        let result =
            to_result(unsafe { bindings::virtqueue_reset(vq, Some(drop_buffer::<B>), None) });

        // SAFETY: As above.
        if unsafe { (*vq).num_free } == ring.size.load(Relaxed) {
            ring.buffers.store(0, Relaxed);
        }
        // By this error the device does not use the queue any more.
        if result != Err(EBUSY) {
            // INVARIANT: The queue is valid, as it was before.
            ring.is_live.store(true, Release);
        }
        result.inspect(|()| self.position = None)
    }

    /// Returns whether no buffer can be added or taken any more: the queue is gone, or it is broken
    /// by an error of the device, or because the device was pulled out or shut down.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtqueue_is_broken")]
    #[inline]
    pub fn is_broken(&self) -> bool {
        let guard = rcu::read_lock();

        self.live(&guard).is_none_or(|vq| vq.is_broken())
    }

    /// Returns whether the ring maps buffers for the device, through an IOMMU or bounce buffers,
    /// while they are in the queue.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtqueue_dma_dev")]
    #[inline]
    pub fn is_mapped(&self) -> bool {
        self.ring.is_mapped.load(Relaxed)
    }

    /// Returns the number of descriptors in the ring, 0 before it was found.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtqueue_get_vring_size")]
    #[inline]
    pub fn size(&self) -> u32 {
        self.ring.size.load(Relaxed)
    }
}

/// Drops a buffer that is left in a queue.
///
/// # Safety
///
/// `token` was detached from the queue, and is from `into_raw` of `B`.
unsafe extern "C" fn drop_buffer<B: Buffer>(_vq: *mut bindings::virtqueue, token: *mut c_void) {
    if let Some(token) = NonNull::new(token.cast()) {
        // SAFETY: By the safety requirements.
        drop(unsafe { B::from_raw(token) });
    }
}

/// A queue that is not gone.
///
/// # Invariants
///
/// The queue is valid: it is deleted only after an RCU grace period that began when the access was
/// revoked, and the guard with the lifetime `'rcu` was taken before.
struct Live<'rcu>(NonNull<bindings::virtqueue>, PhantomData<&'rcu rcu::Guard>);

impl Live<'_> {
    fn as_ptr(&self) -> *mut bindings::virtqueue {
        self.0.as_ptr()
    }

    fn is_broken(&self) -> bool {
        // SAFETY: The queue is valid; the flag is read without a lock by design.
        unsafe { bindings::virtqueue_is_broken(self.as_ptr()) }
    }

    /// Returns the number of free descriptors.
    fn free(&self) -> u32 {
        // SAFETY: The queue is valid.
        unsafe { (*self.as_ptr()).num_free }
    }
}

/// A notification of the device that is still to be made, without the lock around the queue.
#[must_use = "the device is not notified"]
pub struct Notifier<'rcu>(Option<Live<'rcu>>);

impl Notifier<'_> {
    /// Notifies the device.
    ///
    /// Returns `false` if the queue was gone or is broken, or if the notification failed; a queue
    /// whose notification failed is broken from then on.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtqueue_notify")]
    #[must_use = "a queue whose notification failed is broken"]
    #[inline]
    pub fn notify(self) -> bool {
        // SAFETY: The queue is valid; notifying needs no serialization.
        self.0
            .is_some_and(|vq| unsafe { bindings::virtqueue_notify(vq.as_ptr()) })
    }
}
