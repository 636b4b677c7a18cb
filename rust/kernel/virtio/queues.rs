// SPDX-License-Identifier: GPL-2.0

//! The set of a device's queues: it is found, stopped and deleted as a whole.

use super::{
    binding::Binding,
    virtqueue::Ring,
    Buffer,
    Device,
    Feature,
    Virtqueue, //
};
use crate::{
    bindings,
    device::Core,
    error::to_result,
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
    types::NotThreadSafe, //
};
use core::{
    cell::Cell,
    marker::PhantomData,
    ptr, //
};

/// The callbacks of a set's queues, by number.
trait Callbacks: Send + Sync {
    fn used(&self, index: usize);
}

struct CallbacksOf<H> {
    handler: Arc<H>,
    callbacks: KVec<Option<fn(&H)>>,
}

impl<H: Send + Sync> Callbacks for CallbacksOf<H> {
    fn used(&self, index: usize) {
        if let Some(Some(callback)) = self.callbacks.get(index) {
            callback(&self.handler);
        }
    }
}

/// All queues that were found by one call of [`FindVqs::find`].
pub(super) struct Queues {
    rings: KVec<Arc<Ring>>,
    callbacks: KBox<dyn Callbacks>,
    is_stopped: Cell<bool>,
}

/// The callback of every queue. Hard interrupt context.
extern "C" fn used_callback(vq: *mut bindings::virtqueue) {
    // SAFETY: The virtio core calls back with a valid virtqueue of a valid device.
    let (vdev, index) = unsafe { ((*vq).vdev, (*vq).index) };

    // SAFETY: `find()` has stored the set before there were queues. It is taken out only after
    // `del_vqs`, which waits for callbacks.
    if let Some(queues) = unsafe { Binding::of_raw(vdev).queues() } {
        queues.callbacks.used(index as usize);
    }
}

impl Queues {
    /// Stops the device: neither a driver nor a callback nor a notification uses the queues any
    /// more, and the device was reset. May sleep.
    fn stop(&self, vdev: &Device<Core<'_>>) {
        if self.is_stopped.replace(true) {
            return;
        }
        for ring in &self.rings {
            ring.revoke();
        }
        // SAFETY: The device is valid, and has queues. PCI waits for callbacks on reset, MMIO does
        // not.
        unsafe { bindings::virtio_synchronize_cbs(vdev.as_raw()) };
        // Notifications, too: after the reset one would reach the next set's queue, which is an
        // error for some devices.
        rcu::synchronize_rcu();

        // The transport would wait for ever for the reset of a device that is gone.
        if !vdev.status().is_gone() {
            vdev.reset();
        }
        for ring in &self.rings {
            // SAFETY: `find()` has opened the ring. It was revoked before the grace period, and the
            // device has stopped.
            unsafe { ring.stop() };
        }
    }
}

/// Stops and deletes a device's queues, if there are any. May sleep.
pub(super) fn delete(vdev: &Device<Core<'_>>) {
    let binding = Binding::of(vdev);
    let Some(queues) = binding.queues() else {
        return;
    };

    queues.stop(vdev);
    let left: u32 = queues.rings.iter().map(|ring| ring.close()).sum();

    if let Some(del_vqs) = vdev.ops().del_vqs {
        // SAFETY: The device is valid and stopped, and no ring gives access to its queue. The set
        // is there once, and taken out below.
        unsafe { del_vqs(vdev.as_raw()) };
    }
    // SAFETY: There are no queues any more, and so no callback uses the set.
    drop(unsafe { binding.set_queues(None) });

    if left > 0 {
        dev_warn!(
            vdev,
            "{} buffers were not taken back from the queues, and stay allocated\n",
            left
        );
    }
}

/// Finds the queues of a device.
///
/// First each queue is [named](Self::queue), in the order of the device type's specification, and
/// then all are [found](Self::find). A device has one such set at a time.
///
/// C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h), `struct
/// virtqueue_info`
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
/// impl State {
///     /// The callback of the queue.
///     fn answered(&self) {
///         if let Some(queue) = &mut *self.queue.lock() {
///             while let Some((request, len)) = queue.get() {
///                 pr_info!("{} bytes: {}\n", len, request.response().get());
///             }
///         }
///     }
/// }
///
/// fn start(vdev: &virtio::Device<Core<'_>>, state: Arc<State>) -> Result {
///     let mut queues = vdev.find_vqs(state.clone());
///     let queue = queues.queue(c"requests", Some(State::answered))?;
///
///     // From here on the callback uses the queue.
///     *state.queue.lock() = Some(queue);
///     queues.find()?;
///     vdev.ready();
///
///     if let Some(queue) = &mut *state.queue.lock() {
///         let request = KBox::new(Command::new(Le32::new(0), Le32::new(!0)), GFP_ATOMIC)?;
///
///         queue.add(request).map_err(|(err, _request)| err)?;
///         if !queue.kick() {
///             return Err(EIO);
///         }
///     }
///     Ok(())
/// }
/// ```
#[must_use = "the queues are not found"]
pub struct FindVqs<'a, 'b, H> {
    vdev: &'a Device<Core<'b>>,
    handler: Arc<H>,
    names: KVec<&'static CStr>,
    callbacks: KVec<Option<fn(&H)>>,
    rings: KVec<Arc<Ring>>,
    affinity: Option<bindings::irq_affinity>,
}

impl<H: Send + Sync + 'static> FindVqs<'_, '_, H> {
    /// Names the next queue. Returns its access, which is that of a queue that is gone until the
    /// queues were found.
    ///
    /// `callback` is called when the device has used buffers of the queue. It is called in hard
    /// interrupt context, with a lock of the transport held if interrupts are shared: it must not
    /// sleep, and a lock that it takes must be innermost. It may be called without used buffers.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtqueue_info")]
    pub fn queue<B: Buffer>(
        &mut self,
        name: &'static CStr,
        callback: Option<fn(&H)>,
    ) -> Result<Virtqueue<B>> {
        let ring = Ring::new(self.vdev.as_raw())?;

        self.names.push(name, GFP_KERNEL)?;
        self.callbacks.push(callback, GFP_KERNEL)?;
        self.rings.push(ring.clone(), GFP_KERNEL)?;
        Ok(Virtqueue::new(ring))
    }

    /// Spreads the queues' interrupts over the CPUs, except the first `pre` and the last `post`
    /// ones. Transports without interrupts of their own for each queue ignore it.
    ///
    /// C header: [`include/linux/interrupt.h`](srctree/include/linux/interrupt.h), `struct
    /// irq_affinity`
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "irq_affinity")]
    #[inline]
    pub fn spread_interrupts(&mut self, pre: u32, post: u32) {
        self.affinity = Some(bindings::irq_affinity {
            pre_vectors: pre,
            post_vectors: post,
            ..Default::default()
        });
    }

    /// Finds the queues. The device does not use them before [`ready`](Device::ready).
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if there are queues, stopped or not.
    /// - [`EINVAL`] if no queue was named.
    /// - [`ENOMEM`] if there is no memory.
    /// - What the transport returns, e.g. [`ENOENT`] for a queue that the device lacks.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtio_find_vqs")]
    pub fn find(self) -> Result {
        let Self {
            vdev,
            handler,
            names,
            callbacks,
            rings,
            mut affinity,
        } = self;
        let binding = Binding::of(vdev);

        if binding.queues().is_some() {
            return Err(EBUSY);
        }
        if rings.is_empty() {
            return Err(EINVAL);
        }

        let mut vqs = KVec::from_elem(ptr::null_mut(), rings.len(), GFP_KERNEL)?;
        let mut info = KVec::with_capacity(rings.len(), GFP_KERNEL)?;
        let used: unsafe extern "C" fn(*mut bindings::virtqueue) = used_callback;

        for (name, callback) in names.iter().zip(&callbacks) {
            info.push(
                bindings::virtqueue_info {
                    name: name.as_char_ptr(),
                    callback: callback.is_some().then_some(used),
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
        }

        let callbacks = KBox::new(CallbacksOf { handler, callbacks }, GFP_KERNEL)?;
        let queues = KBox::new(
            Queues {
                rings,
                callbacks,
                is_stopped: Cell::new(false),
            },
            GFP_KERNEL,
        )?;

        // SAFETY: There are no queues, so no callback uses the set.
        unsafe { binding.set_queues(Some(queues)) };
        // SAFETY: Both arrays have an entry for each queue. The names are static, because the core
        // keeps them.
        to_result(unsafe {
            bindings::virtio_find_vqs(
                vdev.as_raw(),
                vqs.len() as u32,
                vqs.as_mut_ptr(),
                info.as_mut_ptr(),
                affinity.as_mut().map_or(ptr::null_mut(), ptr::from_mut),
            )
        })
        // SAFETY: As above: the transport has deleted what it had found.
        .inspect_err(|_| drop(unsafe { binding.set_queues(None) }))?;

        let maps = vdev.has_feature(Feature::ACCESS_PLATFORM);
        let indirect = vdev.has_feature(Feature::RING_INDIRECT_DESC);

        for (ring, vq) in binding.queues().iter().flat_map(|set| &set.rings).zip(vqs) {
            // SAFETY: No name was null, so on success every queue was found. It is deleted by
            // `delete()` only, which stops and closes the ring before.
            unsafe { ring.open(vq, maps, indirect) };
        }
        Ok(())
    }
}

/// The queues of a device, stopped: no operation of the driver, no callback and no notification
/// uses them any more, and the device was reset. The driver takes back the buffers that are left.
///
/// A buffer that is taken back is the driver's again, although some hosts write to it after the
/// reset. The driver of such a device leaves it in the queue.
///
/// The queues are deleted when this is dropped. Buffers that are left then stay allocated and
/// mapped for good.
///
/// # Context
///
/// All methods may sleep, and so may dropping it.
///
/// # Examples
///
/// The driver cannot keep it for later, when the device may be in use again:
///
/// ```ignore,compile_fail,E0621
/// use kernel::{
///     device::Core,
///     virtio::{
///         Device,
///         Stopped, //
///     }, //
/// };
///
/// fn stop<'a>(vdev: &Device<Core<'_>>, kept: &mut Option<Stopped<'a, 'a>>) {
///     *kept = Some(vdev.stop_queues());
/// }
/// ```
#[must_use = "the queues are deleted when this is dropped"]
pub struct Stopped<'a, 'b> {
    vdev: &'a Device<Core<'b>>,
    _not_send: NotThreadSafe,
}

impl Stopped<'_, '_> {
    /// Takes the next buffer that the device had used, as [`Virtqueue::get`]. Returns [`None`] also
    /// if the queue is none of these.
    #[doc(alias = "virtqueue_get_buf")]
    pub fn get<B: Buffer>(&mut self, queue: &mut Virtqueue<B>) -> Option<(B, u32)> {
        // SAFETY: In the core context of `vdev`.
        unsafe { queue.get_stopped(self.vdev.as_raw()) }
    }

    /// Takes a buffer that the device had not used. Returns [`None`] also if the queue is none of
    /// these.
    #[doc(alias("detach_unused_buf", "virtqueue_detach_unused_buf"))]
    pub fn detach<B: Buffer>(&mut self, queue: &mut Virtqueue<B>) -> Option<B> {
        // SAFETY: In the core context of `vdev`.
        unsafe { queue.detach_stopped(self.vdev.as_raw()) }
    }

    /// Takes and drops all buffers that are left in a queue, used or not.
    pub fn drain<B: Buffer>(&mut self, queue: &mut Virtqueue<B>) {
        while self.get(queue).is_some() {}
        while self.detach(queue).is_some() {}
    }
}

impl Drop for Stopped<'_, '_> {
    fn drop(&mut self) {
        delete(self.vdev);
    }
}

impl<'b> Device<Core<'b>> {
    /// Begins to find the device's queues, whose callbacks get `handler`. The bus keeps it until
    /// the queues are deleted.
    ///
    /// # Context
    ///
    /// Any context.
    #[doc(alias = "virtio_find_vqs")]
    #[inline]
    pub fn find_vqs<H: Send + Sync + 'static>(&self, handler: Arc<H>) -> FindVqs<'_, 'b, H> {
        FindVqs {
            vdev: self,
            handler,
            names: KVec::new(),
            callbacks: KVec::new(),
            rings: KVec::new(),
            affinity: None,
        }
    }

    /// Resets one queue: the device stops using it, the buffers that are left in it, used or not,
    /// are dropped, and the device gets it back empty.
    ///
    /// The driver of a device that writes to a buffer after such a reset does not use this.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if the queue is gone, or one of another device.
    /// - [`ENOENT`] if the transport or the device cannot reset a queue, which stays as it is.
    /// - [`EBUSY`] if the device does not take the queue back, which is gone then.
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias = "virtqueue_reset")]
    #[inline]
    pub fn reset_queue<B: Buffer>(&self, queue: &mut Virtqueue<B>) -> Result {
        // SAFETY: In the core context of this device.
        unsafe { queue.reset(self.as_raw()) }
    }

    /// Stops the device and its queues, if there are any.
    ///
    /// To be called before a driver finds queues again, and to take buffers back. The bus does it
    /// when the driver is unbound, and after [`freeze`](super::Driver::freeze) and
    /// [`reset_prepare`](super::Driver::reset_prepare).
    ///
    /// # Context
    ///
    /// May sleep.
    #[doc(alias("virtio_reset_device", "del_vqs"))]
    pub fn stop_queues(&self) -> Stopped<'_, 'b> {
        if let Some(queues) = Binding::of(self).queues() {
            queues.stop(self);
        }
        Stopped {
            vdev: self,
            _not_send: PhantomData,
        }
    }
}
