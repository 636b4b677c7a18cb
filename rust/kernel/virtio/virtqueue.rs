// SPDX-License-Identifier: GPL-2.0

//! Virtqueues.
//!
//! [`Device::find_vqs`] gives the driver one [`Virtqueue`] per queue. It is an owner: buffers move
//! into it and back out of it, it can be used from one place at a time (`&mut self`, so a driver
//! keeps it in the data of the lock it takes anyway), and dropping it quiesces the device and gives
//! every outstanding buffer back. The queues of a device are deleted together, exactly once, when
//! the last of them is dropped.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)

use super::{
    reset::ResetGate,
    Buffer,
    Device,
    Feature, //
};
use crate::{
    alloc::Flags,
    bindings,
    device::{
        Core,
        CoreInternal, //
    },
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        rcu,
        Arc,
        Mutex, //
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

/// What a driver does when the device has used buffers.
///
/// The object is shared by all queues of a device and is kept alive by the virtio device until its
/// queues are gone or the driver is unbound.
pub trait Handler: Send + Sync + 'static {
    /// The device has used buffers of queue `index`, counted as in [`Device::find_vqs`].
    ///
    /// Called in hard interrupt context, with a lock of the transport held if interrupts are
    /// shared: it must not sleep, and a lock that it takes must be innermost. May be called before
    /// `find_vqs` has returned, and spuriously.
    fn used(&self, index: usize);
}

/// All queues that were found by one call of [`Device::find_vqs`].
#[pin_data]
struct Queues {
    vdev: ARef<Device>,
    // The lock makes who comes second wait: for the device to be stopped, for the queues to be
    // deleted.
    #[pin]
    state: Mutex<State>,
}

struct State {
    /// How many [`Virtqueue`]s there still are.
    live: usize,
    /// The device was stopped.
    quiesced: bool,
    /// The driver was unbound while a [`Virtqueue`] was left: its ring stays, broken, for ever.
    orphaned: bool,
}

impl Queues {
    /// Stops the device: nothing can be added, no callback runs, no notification is under way,
    /// memory is the driver's again.
    fn quiesce(&self) {
        let mut state = self.state.lock();

        if !state.quiesced {
            quiesce(&self.vdev);
            state.quiesced = true;
        }
    }
}

/// What `virtio_device.priv` points to from when the driver finds queues until it is unbound.
///
/// Who finds queues changes `found`, and may do so while somebody looks at `gate`.
struct Slot {
    gate: Arc<ResetGate>,
    found: Option<Found>,
}

/// What queues were found with.
struct Found {
    handler: Arc<dyn Handler>,
    queues: Arc<Queues>,
}

/// The callback of every queue. Hard interrupt context.
extern "C" fn used_callback(vq: *mut bindings::virtqueue) {
    // SAFETY: The virtio core calls back with a valid virtqueue of a valid device.
    let (vdev, index) = unsafe { ((*vq).vdev, (*vq).index) };

    // SAFETY: `find_vqs` stored this before the queues existed. It is replaced only when there are
    // none, and taken away by `release()` only after the callbacks have ended.
    let found = unsafe { &(*(*vdev).priv_.cast::<Slot>()).found };

    if let Some(found) = found {
        found.handler.used(index as usize);
    }
}

/// Breaks the queues, waits for callbacks and resets the device. May sleep.
///
/// To be called while a driver is bound, once per set of queues: `State::quiesced` says so.
/// [`release`] sees to the first, also for queues whose owners live on.
fn quiesce(vdev: &Device) {
    // SAFETY: The device is valid. There is one set of queues at a time, and `release` waits for
    // who stops the last one, so no other driver's queues are hit.
    unsafe {
        bindings::virtio_break_device(vdev.as_raw());
        // PCI waits for callbacks on reset, MMIO does not.
        bindings::virtio_synchronize_cbs(vdev.as_raw());
    }
    // Neither waits for a notification ([`Notifier`]). One that comes after the reset would be
    // for the next driver's queue, and some devices take it for an error.
    rcu::synchronize_rcu();

    // The transport would wait for ever for a device that is gone.
    if !vdev.raw_status().is_gone() {
        // SAFETY: As above.
        unsafe { bindings::virtio_reset_device(vdev.as_raw()) };
    }
}

/// Makes a device fit for the queues of a driver that is about to bind. Called by the bus adapter
/// before probe.
pub(super) fn prepare(vdev: &Device<CoreInternal<'_>>) {
    // SAFETY: `priv` belongs to the driver that is bound, and drivers in C leave it behind.
    unsafe { (*vdev.as_raw()).priv_ = ptr::null_mut() };
}

/// Ends everything that a driver may have left in the device's queues. Called by the bus adapter
/// after remove and after a failed probe. May sleep.
pub(super) fn release(vdev: &Device<CoreInternal<'_>>) {
    if let Some(found) = vdev.found() {
        found.queues.quiesce();
    }
    if !vdev.status().is_reset() {
        quiesce(vdev);
    }

    let Some(slot) = vdev.slot() else { return };

    // SAFETY: The slot is valid. Callbacks have ended, so nobody else looks at this field.
    let found = unsafe { (*slot.as_ptr()).found.take() };

    // A reset that was given up may still come to its end, and then looks for the gate.
    //
    // SAFETY: As above.
    if !unsafe { (*slot.as_ptr()).gate.is_given_up() } {
        // SAFETY: The device is valid and `priv` is owned by this module. Nobody else looks for it.
        unsafe { (*vdev.as_raw()).priv_ = ptr::null_mut() };
        // SAFETY: The slot was stored by `find_vqs` from a `KBox`, and is no longer reachable.
        drop(unsafe { KBox::from_raw(slot.as_ptr()) });
    }

    let Some(Found { handler, queues }) = found else {
        return;
    };

    // This may be its last reference, and the queues may be in it.
    drop(handler);

    let mut state = queues.state.lock();
    if state.live != 0 {
        state.orphaned = true;
        unlink_queues(vdev);
        dev_warn!(
            vdev.as_ref(),
            "driver bug: a virtqueue is left after unbind, its ring is leaked\n"
        );
    }
}

/// Takes the queues that are left out of reach of the core and of the next driver, which would
/// revive them, or delete them under their owner.
fn unlink_queues(vdev: &Device<CoreInternal<'_>>) {
    let raw = vdev.as_raw();

    // SAFETY: The device is valid, and the lock, which is not taken in interrupts, is its list's.
    // Every entry is a virtqueue that is not deleted, so its links are valid. It is left linked
    // with itself.
    unsafe {
        let head = &raw mut (*raw).vqs;

        bindings::spin_lock(&raw mut (*raw).vqs_list_lock);
        while !ptr::eq((*head).next, head) {
            let entry = (*head).next;

            (*head).next = (*entry).next;
            (*(*entry).next).prev = head;
            (*entry).next = entry;
            (*entry).prev = entry;
        }
        bindings::spin_unlock(&raw mut (*raw).vqs_list_lock);
    }
}

impl ResetGate {
    /// The gate of a device, if its driver has found queues.
    pub(super) fn of(vdev: &Device<Core<'_>>) -> Option<Arc<Self>> {
        // SAFETY: The slot is valid, and this field never changes.
        vdev.slot()
            .map(|slot| unsafe { (*slot.as_ptr()).gate.clone() })
    }
}

impl Device<Core<'_>> {
    /// Finds the device's queues, one for each of `names`, in the order of the device type's
    /// specification. `handler` is called when the device has used buffers of any of them.
    ///
    /// The device does nothing with the queues before [`ready`](Device::ready).
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if queues found before are still there; else what the transport reports, e.g.
    /// [`ENOENT`] for a queue that the device lacks.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     device::Core,
    ///     new_spinlock_irq,
    ///     sync::{
    ///         Arc,
    ///         SpinLockIrq, //
    ///     },
    ///     virtio::{
    ///         self,
    ///         Command,
    ///         Le32, //
    ///     }, //
    /// };
    ///
    /// type Request = KBox<Command<Le32, Le32>>;
    ///
    /// #[pin_data]
    /// struct State {
    ///     #[pin]
    ///     queue: SpinLockIrq<Option<virtio::Virtqueue<Request>>>,
    /// }
    ///
    /// impl virtio::Handler for State {
    ///     fn used(&self, _index: usize) {
    ///         if let Some(queue) = &mut *self.queue.lock() {
    ///             while let Some((request, len)) = queue.get() {
    ///                 pr_info!("{} bytes: {}\n", len, request.response().get());
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// fn start(vdev: &virtio::Device<Core<'_>>, state: Arc<State>) -> Result {
    ///     let [mut queue] = vdev.find_vqs(state.clone(), [c"requests"])?;
    ///     let request = KBox::new(Command::new(Le32::new(0), Le32::new(!0)), GFP_KERNEL)?;
    ///
    ///     queue.add(request, GFP_KERNEL).map_err(|(err, _request)| err)?;
    ///     if !queue.kick() {
    ///         return Err(EIO);
    ///     }
    ///     *state.queue.lock() = Some(queue);
    ///     Ok(())
    /// }
    /// ```
    pub fn find_vqs<B: Buffer, H: Handler, const N: usize>(
        &self,
        handler: Arc<H>,
        names: [&'static CStr; N],
    ) -> Result<[Virtqueue<B>; N]> {
        self.find_with(handler, names)
    }

    /// As [`find_vqs`](Self::find_vqs), with the handler of the last time: for a driver that
    /// recovers its device.
    ///
    /// # Errors
    ///
    /// Also [`EINVAL`] if there was no last time.
    pub fn find_vqs_again<B: Buffer, const N: usize>(
        &self,
        names: [&'static CStr; N],
    ) -> Result<[Virtqueue<B>; N]> {
        self.find_with(self.found().ok_or(EINVAL)?.handler.clone(), names)
    }

    /// Returns the slot, if queues were found since the driver was bound.
    fn slot(&self) -> Option<NonNull<Slot>> {
        // SAFETY: The device is valid, and `priv` is owned by this module. It changes only in the
        // core context: when queues are found for the first time, and in `release()`. That waits
        // for the end of a reset, which holds no lock, or leaves the slot for it.
        NonNull::new(unsafe { (*self.as_raw()).priv_ }.cast::<Slot>())
    }

    /// Returns what queues were found with the last time. Not for who only holds the device's lock:
    /// it changes at the end of a reset. Not to be used when queues have been found again.
    fn found(&self) -> Option<&Found> {
        // SAFETY: The slot is valid as long as the driver is bound. This field is changed by
        // `find_with` and `release()` only, which the core context serializes.
        unsafe { (*self.slot()?.as_ptr()).found.as_ref() }
    }

    fn find_with<B: Buffer, const N: usize>(
        &self,
        handler: Arc<dyn Handler>,
        names: [&'static CStr; N],
    ) -> Result<[Virtqueue<B>; N]> {
        const { assert!(N > 0) };

        let raw = self.as_raw();

        // Whoever deletes queues holds this lock until they are deleted.
        if self
            .found()
            .is_some_and(|old| old.queues.state.lock().live != 0)
        {
            return Err(EBUSY);
        }

        let queues = Arc::pin_init(
            pin_init!(Queues {
                vdev: self.into(),
                state <- new_mutex!(
                    State {
                        live: 0,
                        quiesced: false,
                        orphaned: false,
                    },
                    "Queues::state"
                ),
            }),
            GFP_KERNEL,
        )?;
        let found = Some(Found {
            handler,
            queues: queues.clone(),
        });

        if let Some(slot) = self.slot() {
            // SAFETY: The slot is valid. There are no queues, so no callback looks at this field,
            // and nobody else does.
            unsafe { (*slot.as_ptr()).found = found };
        } else {
            let gate = ResetGate::new()?;
            let slot = KBox::new(Slot { gate, found }, GFP_KERNEL)?;

            // SAFETY: The device is valid and `priv` is owned by this module.
            unsafe { (*raw).priv_ = KBox::into_raw(slot).cast() };
        }

        let mut vqs = [ptr::null_mut(); N];
        let mut info = names.map(|name| bindings::virtqueue_info {
            name: name.as_char_ptr(),
            callback: Some(used_callback),
            ctx: false,
        });

        // SAFETY: Both arrays have `N` entries; the names are static, as the core keeps them.
        to_result(unsafe {
            bindings::virtio_find_vqs(raw, N as u32, vqs.as_mut_ptr(), info.as_mut_ptr())
        })?;

        queues.state.lock().live = N;
        Ok(vqs.map(|vq| Virtqueue {
            // SAFETY: No name was null, so on success every queue was found.
            vq: unsafe { NonNull::new_unchecked(vq) },
            queues: queues.clone(),
            _buffers: PhantomData,
        }))
    }
}

/// A queue of buffers of type `B` between the driver and the device.
///
/// Dropping it may sleep: it quiesces the device, drops the buffers that are left, and deletes the
/// queues if it was the last of them. To get the buffers, [close](Self::close) it instead.
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
// SAFETY: What takes `&self` only reads what is constant or meant to be read without a lock.
unsafe impl<B: Buffer> Sync for Virtqueue<B> {}

impl<B: Buffer> Virtqueue<B> {
    /// Moves `buffer` to the device's side. The device may not look at it before
    /// [`kick`](Self::kick).
    ///
    /// A full queue is not notified, as C's `virtqueue_add_sgs()` would: some devices take a
    /// notification without a new buffer for an error.
    ///
    /// `flags` must suit the context; the ring allocates only with
    /// [`RING_INDIRECT_DESC`](Feature::RING_INDIRECT_DESC), the DMA layer only behind an IOMMU or
    /// bounce buffer. Atomic context is fine with `GFP_ATOMIC`.
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
            // unique and not null. The scatterlists are needed for the call only; what they
            // describe stays valid until the token is taken back, by the contract of `Buffer`.
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

        // A packed ring says EIO for a mapping that fails, and for nothing else while it works.
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

    /// Takes the next buffer that the device has used, with the number of bytes that the device
    /// says it has written (a hostile device can say anything).
    ///
    /// Returns [`None`] if there is none, or if the queue is broken. Atomic context is fine.
    pub fn get(&mut self) -> Option<(B, u32)> {
        let mut len = 0;

        // SAFETY: The queue is valid and used from here only.
        let token = unsafe { bindings::virtqueue_get_buf(self.vq.as_ptr(), &mut len) };

        // SAFETY: By the type invariant the token is from `into_raw`; the ring hands out each one
        // once, whatever the device wrote to it.
        NonNull::new(token).map(|token| (unsafe { B::from_raw(token) }, len))
    }

    /// Tells the device about the added buffers, unless it has asked not to be told.
    ///
    /// Returns `false` if the queue is broken or the notification failed; a queue whose
    /// notification failed is broken from then on. Never call it without having added something.
    /// Atomic context is fine.
    #[must_use = "a queue whose notification failed is broken"]
    pub fn kick(&mut self) -> bool {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) }
    }

    /// The first half of [`kick`](Self::kick): makes the added buffers visible and returns whether
    /// the device wants to be told, by a [`notifier`](Self::notifier). Atomic context is fine.
    #[must_use = "if `true`, a notification is to follow"]
    pub fn kick_prepare(&mut self) -> bool {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_kick_prepare(self.vq.as_ptr()) }
    }

    /// The second half of [`kick`](Self::kick), which needs no lock: it is a store that may take as
    /// long as an exit from the guest. The notifier is made while the queue is at hand, and may
    /// be used when the lock around the queue was released. Any context.
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

    /// Asks the device not to call back. A hint only. Atomic context is fine.
    pub fn disable_callback(&mut self) {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_disable_cb(self.vq.as_ptr()) }
    }

    /// Asks for callbacks again. Returns `false` if buffers were used meanwhile, for which there
    /// may be no callback. Atomic context is fine.
    #[must_use = "if `false`, used buffers are waiting"]
    pub fn enable_callback(&mut self) -> bool {
        // SAFETY: The queue is valid and used from here only.
        unsafe { bindings::virtqueue_enable_cb(self.vq.as_ptr()) }
    }

    /// Whether the queue is broken, by the device's misbehaviour or by
    /// [`break_device`](Device::break_device). Any context.
    pub fn is_broken(&self) -> bool {
        // SAFETY: The queue is valid; the flag is read without a lock by design.
        unsafe { bindings::virtqueue_is_broken(self.vq.as_ptr()) }
    }

    /// Whether the ring maps buffers for the device, through an IOMMU or bounce buffers, while they
    /// are in the queue. Any context.
    pub fn is_mapped(&self) -> bool {
        // SAFETY: The queue is valid.
        let dma = unsafe { bindings::virtqueue_dma_dev(self.vq.as_ptr()) };

        // Transports that map by themselves have no DMA device, and Xen maps without the feature.
        !dma.is_null() || self.queues.vdev.has_feature(Feature::ACCESS_PLATFORM)
    }

    /// The number of descriptors that are free.
    fn free(&self) -> u32 {
        // SAFETY: The queue is valid.
        unsafe { (*self.vq.as_ptr()).num_free }
    }

    /// The number of descriptors in the ring.
    pub fn size(&self) -> u32 {
        // SAFETY: The queue is valid.
        unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) }
    }

    /// Takes back a buffer that the device has not used. The device must be quiesced. May sleep.
    fn detach_unused(&mut self) -> Option<B> {
        let state = self.queues.state.lock();

        if state.orphaned {
            // They can only be unmapped as long as the device is there.
            return None;
        }

        // SAFETY: The queue is valid and quiesced, so the device does not use its buffers.
        let token = unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };

        // SAFETY: By the type invariant the token is from `into_raw`; it was detached just now, so
        // it is not handed out again.
        NonNull::new(token).map(|token| unsafe { B::from_raw(token) })
    }

    /// Deletes the queues, if this is the last of them. The device must be quiesced. To be called
    /// once, by the owner that gives the queue up. May sleep.
    fn delete(&self) {
        let mut state = self.queues.state.lock();

        state.live -= 1;
        if state.live == 0 && !state.orphaned {
            let vdev = &self.queues.vdev;

            // A queue may have made a notifier after another one had stopped the device.
            rcu::synchronize_rcu();
            if let Some(del_vqs) = vdev.ops().del_vqs {
                // SAFETY: The device is valid and quiesced; this was the last of its queues, and
                // `live` reaches zero once. Neither unbinding nor finding queues again goes on
                // before the lock is released.
                unsafe { del_vqs(vdev.as_raw()) };
            }
        }
    }

    /// Quiesces the device and returns what is left in the queue. The queue is deleted with the
    /// returned value, under the same terms as when it is dropped. May sleep.
    pub fn close(self) -> Closed<B> {
        self.queues.quiesce();
        // SAFETY: The queue is valid. It was broken to stop the driver and the device, and both
        // have stopped: the driver has given it away, and the device was reset.
        unsafe { bindings::__virtqueue_unbreak(self.vq.as_ptr()) };
        Closed(self)
    }
}

impl<B: Buffer> Drop for Virtqueue<B> {
    fn drop(&mut self) {
        self.queues.quiesce();
        while self.detach_unused().is_some() {}
        self.delete();
    }
}

/// A notification of the device that is to be made, without the lock around the queue.
///
/// # Invariants
///
/// `vq` is valid: a queue is deleted only after an RCU grace period that began when its owner was
/// given away, and the guard with the lifetime `'rcu` was taken before.
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

/// What is left in a queue that was [closed](Virtqueue::close): buffers that the device has used,
/// and as an iterator those that it has not.
///
/// Dropping it drops the buffers that are left. That and taking them may sleep.
// The queue within is quiesced.
pub struct Closed<B: Buffer>(Virtqueue<B>);

impl<B: Buffer> Closed<B> {
    /// Takes the next buffer that the device had used, as [`Virtqueue::get`]. May sleep.
    ///
    /// To be called only while there is a buffer in the queue: an element of a device that has used
    /// more than it got breaks the queue.
    pub fn get(&mut self) -> Option<(B, u32)> {
        let queues = self.0.queues.clone();
        let state = queues.state.lock();

        if state.orphaned {
            // It can only be unmapped as long as the device is there.
            return None;
        }
        self.0.get()
    }

    /// Deletes the queue under the buffers that are left, which stay allocated and mapped for good.
    ///
    /// For buffers that the device may still write, although it was reset: hosts are known that do
    /// so. May sleep.
    pub fn leave(self) {
        let this = ManuallyDrop::new(self);

        this.0.delete();
        // SAFETY: `this` is not used any more, and neither dropped. The only field with something
        // to drop is this one.
        drop(unsafe { ptr::read(&this.0.queues) });
    }
}

impl<B: Buffer> Iterator for Closed<B> {
    type Item = B;

    fn next(&mut self) -> Option<B> {
        self.0.detach_unused()
    }
}
