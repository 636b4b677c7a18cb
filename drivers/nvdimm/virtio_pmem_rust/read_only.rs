// SPDX-License-Identifier: GPL-2.0

//! Devices whose memory is never written to.
//!
//! There is no feature bit for them, so the administrator names them.

use kernel::{
    device::{
        self,
        Core, //
    },
    prelude::*,
    virtio, //
};

extern "C" {
    /// The module's parameter. The `module!` macro has none that are strings.
    static virtio_pmem_rust_read_only: *const c_char;
}

/// Returns whether the parameter is set, and whether it names the device.
pub(crate) fn is_named(vdev: &virtio::Device<Core<'_>>) -> (bool, bool) {
    // SAFETY: The parameter is not written any more when a device is probed.
    let list = unsafe { virtio_pmem_rust_read_only };

    if list.is_null() {
        return (false, false);
    }
    // SAFETY: It is a string, which is kept as long as the module.
    let list = unsafe { CStr::from_char_ptr(list) }.to_bytes();
    let dev: &device::Device<Core<'_>> = vdev.as_ref();
    let names = |dev: &CStr| is_in(list, dev.to_bytes());
    let is_named = names(dev.name()) || vdev.transport().is_some_and(|dev| names(dev.name()));

    (!list.is_empty(), is_named)
}

/// Returns whether `list` is `all`, or has `name` between its commas.
fn is_in(list: &[u8], name: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .any(|item| item == b"all" || item == name)
}

#[kunit_tests(virtio_pmem_rust_read_only)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_match() {
        for (list, name, found) in [
            ("virtio1", "virtio1", true),
            ("virtio1", "virtio10", false),
            ("virtio10", "virtio1", false),
            ("virtio0,0000:02:00.0", "0000:02:00.0", true),
            ("virtio0,,virtio2", "virtio2", true),
            ("virtio0, virtio2", "virtio2", false),
            ("virtio0,virtio2,", "virtio1", false),
            ("virtio0", "", false),
        ] {
            assert_eq!(is_in(list.as_bytes(), name.as_bytes()), found);
        }
    }

    #[test]
    fn all_is_every_device() {
        assert!(is_in(b"all", b"virtio1"));
        assert!(is_in(b"virtio0,all", b"virtio1"));
        assert!(!is_in(b"ALL", b"virtio1"));
        assert!(!is_in(b"", b"virtio1"));
    }
}
