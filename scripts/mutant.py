# SPDX-License-Identifier: GPL-2.0
"""Build the driver with a fault that a test has to find: tests/mutants/ has the faults."""

import shutil

import kernel as kernels
import kernel_source
import settings
import steps
import toolchain

FOLDER = settings.TESTS / "mutants"
DRIVER = "drivers/nvdimm/virtio_pmem_rust"


def patch(name, target):
    """Copy the driver's source to a directory, with the fault in it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(settings.ROOT / DRIVER, target / DRIVER)
    steps.run(["patch", "-p1", "--batch", "--fuzz=0", "-i", FOLDER / f"{name}.patch"],
              steps.log_path(f"mutant-{name}"), cwd=target)


def kernel(kdir, tools, built):
    """Return a directory in which this release kernel was compiled.

    A kept kernel is without the metadata of its Rust crates.
    """
    if (built / "rust/libkernel.rmeta").exists():
        return built
    out = settings.out("mutants") / "kernel"
    out.mkdir(parents=True, exist_ok=True)
    kernels.compile_kernel(kdir, "release", out, tools)
    return out


def build(name, built):
    """Build the module with the fault for a kernel; return its path."""
    target = settings.out("mutants") / name
    with steps.alone(), steps.step(f"mutant {name}"):
        kdir = kernel_source.tree()
        tools = toolchain.ready(kdir)
        patch(name, target)
        steps.run([*kernels.make_command(kdir, kernel(kdir, tools, built), tools),
                   f"M={target / DRIVER}", "modules"],
                  steps.log_path(f"mutant-{name}"), append=True)
    return target / DRIVER / "virtio_pmem_rust.ko"


def files(module, built):
    """Return a module as files of a Guest, in the place of the kernel's own."""
    (own,) = (built / "modules").rglob("virtio_pmem_rust.ko")
    return {f"/{own.relative_to(built / 'modules')}": module}
