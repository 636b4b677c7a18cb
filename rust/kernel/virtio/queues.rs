// SPDX-License-Identifier: GPL-2.0

//! The set of a device's queues: it is found, stopped and deleted as a whole.

use super::{
    reset::ResetGate,
    Buffer,
    Device,
    Virtqueue, //
};
use crate::{
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
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};

/// The callback of a driver's queues.
///
/// All queues of a device share the object. The virtio device keeps it until its queues are deleted
/// or the driver is unbound. [`Device::find_vqs`] has an example.
pub trait Handler: Send + Sync + 'static {
    /// The device has used buffers of queue number `index`, in the order of [`Device::find_vqs`].
    ///
    /// Called in hard interrupt context, with a lock of the transport held if interrupts are
    /// shared: it must not sleep, and a lock that it takes must be innermost. May be called before
    /// `find_vqs` has returned, and without used buffers.
    fn used(&self, index: usize);
}

/// All queues that were found by one call of [`Device::find_vqs`].
#[pin_data]
pub(super) struct Queues {
    pub(super) vdev: ARef<Device>,
    // Held while the device is stopped and while the queues are deleted, so that a second task
    // waits for the end of that.
    #[pin]
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    /// How many [`Virtqueue`]s there still are.
    live: usize,
    /// The device was stopped.
    quiesced: bool,
    /// The driver was unbound while a [`Virtqueue`] was left: its ring stays, broken, for ever.
    pub(super) orphaned: bool,
}

impl Queues {
    /// Stops the device: no buffer can be added, no callback or notification runs, and the buffers
    /// are the driver's again. May sleep.
    pub(super) fn quiesce(&self) {
        let mut state = self.state.lock();

        if !state.quiesced {
            quiesce(&self.vdev);
            state.quiesced = true;
        }
    }

    /// Deletes the queues, if the last of them is given up. The device must be quiesced. To be
    /// called once for each queue, by its owner. May sleep.
    pub(super) fn delete_one(&self) {
        let mut state = self.state.lock();

        state.live -= 1;
        if state.live == 0 && !state.orphaned {
            let vdev = &self.vdev;

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
}

/// The content of `virtio_device.priv` from when the driver finds queues until it is unbound.
///
/// `found` changes when queues are found again, while another task may read `gate`.
struct Slot {
    gate: Arc<ResetGate>,
    found: Option<Found>,
}

/// The queues that were found last, and their handler.
struct Found {
    handler: Arc<dyn Handler>,
    queues: Arc<Queues>,
}

/// The callback of every queue. Hard interrupt context.
extern "C" fn used_callback(vq: *mut bindings::virtqueue) {
    // SAFETY: The virtio core calls back with a valid virtqueue of a valid device.
    let (vdev, index) = unsafe { ((*vq).vdev, (*vq).index) };

    // SAFETY: `find_vqs` stored this before the queues existed. It is replaced only when there are
    // none, and removed by `release()` only after the callbacks have ended.
    let found = unsafe { &(*(*vdev).priv_.cast::<Slot>()).found };

    if let Some(found) = found {
        found.handler.used(index as usize);
    }
}

/// Breaks the queues, waits for callbacks and resets the device. May sleep.
///
/// To be called while a driver is bound, once per set of queues (`State::quiesced`). [`release`]
/// does it for queues that are left.
fn quiesce(vdev: &Device) {
    // SAFETY: The device is valid. There is one set of queues at a time, and `release` waits until
    // the last one was stopped, so these are not another driver's queues.
    unsafe {
        bindings::virtio_break_device(vdev.as_raw());
        // PCI waits for callbacks on reset, MMIO does not.
        bindings::virtio_synchronize_cbs(vdev.as_raw());
    }
    // Neither waits for a notification ([`Notifier`](super::Notifier)). After the reset it would
    // reach the next driver's queue, which is an error for some devices.
    rcu::synchronize_rcu();

    // The transport would wait for ever for the reset of a device that is gone.
    if !vdev.raw_status().is_gone() {
        // SAFETY: As above.
        unsafe { bindings::virtio_reset_device(vdev.as_raw()) };
    }
}

/// Prepares a device for the queues of a driver that is about to bind. Called by the bus adapter
/// before probe.
pub(super) fn prepare(vdev: &Device<CoreInternal<'_>>) {
    // SAFETY: `priv` belongs to the driver that is bound. Drivers in C leave their value in it.
    unsafe { (*vdev.as_raw()).priv_ = ptr::null_mut() };
}

/// Stops a device that a driver may have left in use, and drops its handler. Called by the bus
/// adapter after remove and after a failed probe. May sleep.
pub(super) fn release(vdev: &Device<CoreInternal<'_>>) {
    if let Some(found) = vdev.found() {
        found.queues.quiesce();
    }
    if !vdev.status().is_reset() {
        quiesce(vdev);
    }

    let Some(slot) = vdev.slot() else { return };

    // SAFETY: The slot is valid. Callbacks have ended, so this is the only access to the field.
    let found = unsafe { (*slot.as_ptr()).found.take() };

    // A reset that was given up may still come to its end, which needs the gate.
    //
    // SAFETY: As above.
    if !unsafe { (*slot.as_ptr()).gate.is_given_up() } {
        // SAFETY: The device is valid and `priv` is owned by this module. No other task reads it.
        unsafe { (*vdev.as_raw()).priv_ = ptr::null_mut() };
        // SAFETY: The slot was stored by `find_vqs` from a `KBox`, and is no longer reachable.
        drop(unsafe { KBox::from_raw(slot.as_ptr()) });
    }

    let Some(Found { handler, queues }) = found else {
        return;
    };

    // This may be its last reference, and it may own the queues.
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

/// Removes the remaining queues from the device's list: the core or the next driver would use them
/// again, or delete them while they have an owner.
fn unlink_queues(vdev: &Device<CoreInternal<'_>>) {
    let raw = vdev.as_raw();

    // SAFETY: The device is valid, and the lock, which is not taken in interrupts, is its list's.
    // Every entry is a virtqueue that is not deleted, so its links are valid. In the end it is
    // linked with itself.
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
    /// Returns the gate of a device, if its driver has found queues.
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
    /// The device does not use the queues before [`ready`](Device::ready).
    ///
    /// May sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if queues that were found before are still there.
    /// - [`ENOMEM`] if there is no memory.
    /// - What the transport returns, e.g. [`ENOENT`] for a queue that the device lacks.
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

    /// As [`find_vqs`](Self::find_vqs), with the same handler as before: for a driver that recovers
    /// its device. May sleep.
    ///
    /// # Errors
    ///
    /// Also [`EINVAL`] if no queues were found before.
    pub fn find_vqs_again<B: Buffer, const N: usize>(
        &self,
        names: [&'static CStr; N],
    ) -> Result<[Virtqueue<B>; N]> {
        self.find_with(self.found().ok_or(EINVAL)?.handler.clone(), names)
    }

    /// Returns the slot, if queues were found since the driver was bound.
    fn slot(&self) -> Option<NonNull<Slot>> {
        // SAFETY: The device is valid, and `priv` is owned by this module. It changes only in the
        // core context: when queues are found for the first time, and in `release()`. The end of a
        // reset holds no lock: `release()` comes after it, or leaves the slot to it.
        NonNull::new(unsafe { (*self.as_raw()).priv_ }.cast::<Slot>())
    }

    /// Returns what was found last. The device's lock alone does not protect it, because it changes
    /// at the end of a reset. The reference must not be used when queues have been found again.
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

        // The lock is held while queues are deleted.
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
            // SAFETY: The slot is valid. There are no queues, so no callback reads this field, and
            // no other task does.
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

        // SAFETY: Both arrays have `N` entries; the names are static, because the core keeps them.
        to_result(unsafe {
            bindings::virtio_find_vqs(raw, N as u32, vqs.as_mut_ptr(), info.as_mut_ptr())
        })?;

        queues.state.lock().live = N;
        Ok(vqs.map(|vq| {
            // SAFETY: No name was null, so on success every queue was found. It was counted above,
            // and this is its only owner.
            unsafe { Virtqueue::new(NonNull::new_unchecked(vq), queues.clone()) }
        }))
    }
}
