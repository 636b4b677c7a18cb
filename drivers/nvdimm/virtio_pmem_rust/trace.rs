// SPDX-License-Identifier: GPL-2.0

//! The driver's trace events. While they are off, each costs a jump.
//!
//! C header: [`include/trace/events/virtio_pmem.h`](srctree/include/trace/events/virtio_pmem.h)

use kernel::{
    bindings,
    device::Device,
    prelude::*,
    tracepoint::declare_trace, //
};

declare_trace! {
    unsafe fn virtio_pmem_arrive(dev: *const bindings::device, batch: u64, sleeps: bool);
    unsafe fn virtio_pmem_gather(
        dev: *const bindings::device, batch: u64, callers: u32, expected: u32
    );
    unsafe fn virtio_pmem_send(dev: *const bindings::device, batch: u64, callers: u32);
    unsafe fn virtio_pmem_answer(
        dev: *const bindings::device, batch: u64, len: u32, status: u32
    );
    unsafe fn virtio_pmem_complete(
        dev: *const bindings::device, batch: u64, callers: u32, error: c_int
    );
}

fn raw(dev: &Device) -> *const bindings::device {
    // CAST: `Device` is a transparent wrapper of `struct device`.
    core::ptr::from_ref(dev).cast()
}

/// A caller joined `batch`. Any context.
#[inline]
pub(crate) fn arrive(dev: &Device, batch: u64, sleeps: bool) {
    // SAFETY: The event only reads the device's name, and `dev` is valid during the call.
    unsafe { virtio_pmem_arrive(raw(dev), batch, sleeps) }
}

/// The flush for `batch` is held back no longer: so many of the `expected` callers are here. Any
/// context.
#[inline]
pub(crate) fn gather(dev: &Device, batch: u64, callers: usize, expected: usize) {
    // SAFETY: As in `arrive`.
    unsafe { virtio_pmem_gather(raw(dev), batch, callers as u32, expected as u32) }
}

/// A flush was sent to the host for `batch`. Any context.
#[inline]
pub(crate) fn send(dev: &Device, batch: u64, callers: usize) {
    // SAFETY: As in `arrive`.
    unsafe { virtio_pmem_send(raw(dev), batch, callers as u32) }
}

/// The host has answered the flush of `batch`. Any context.
#[inline]
pub(crate) fn answer(dev: &Device, batch: u64, len: u32, status: u32) {
    // SAFETY: As in `arrive`.
    unsafe { virtio_pmem_answer(raw(dev), batch, len, status) }
}

/// The callers of `batch` have ended. Any context.
#[inline]
pub(crate) fn complete(dev: &Device, batch: u64, callers: usize, result: Result) {
    let error = result.err().map_or(0, Error::to_errno);

    // SAFETY: As in `arrive`.
    unsafe { virtio_pmem_complete(raw(dev), batch, callers as u32, error) }
}
