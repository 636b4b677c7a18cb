# SPDX-License-Identifier: GPL-2.0
"""The driver with a fault that a test has to find."""

import shutil

import kernel as kernels
import kernel_source
import settings
import steps
import toolchain

DRIVER = "drivers/nvdimm/virtio_pmem_rust"


def mutated(kernel, substitutions, folder):
    """Build the driver's module for a kernel, with text replaced; return it as files of a Guest.

    substitutions  (file, text, replacement), where the text is in the file once or more
    folder         where it is built; the kernel's build stays as it is
    """
    source = folder / "module"
    shutil.copytree(settings.ROOT / DRIVER, source)
    for name, text, replacement in substitutions:
        before = (source / name).read_text(encoding="utf-8")
        assert text in before, f"{name} has no {text!r}"
        (source / name).write_text(before.replace(text, replacement), encoding="utf-8")
    with steps.alone():
        kdir = kernel_source.tree()
        make = kernels.make_command(kdir, kernel.out, toolchain.ready(kdir))
    steps.run([*make, f"M={source}", "modules"], steps.log_path(f"mutant-{folder.name}"))
    (module,) = kernel.out.glob("modules/lib/modules/**/virtio_pmem_rust.ko")
    return {f"/{module.relative_to(kernel.out / 'modules')}": source / module.name}
