# SPDX-License-Identifier: GPL-2.0
"""The kernels that users may have: configurations beside those of the guests.

Each is tinyconfig, COMMON and a few lines of its own, or Debian's configuration and these lines.
Each line must be in the final configuration.
"""

import dataclasses

COMMON = """
CONFIG_MODULES=y
CONFIG_RUST=y
CONFIG_SMP=y
CONFIG_PRINTK=y
CONFIG_BLOCK=y
CONFIG_BLK_DEV=y
CONFIG_PCI=y
CONFIG_VIRTIO_MENU=y
CONFIG_VIRTIO_PCI=y
CONFIG_LIBNVDIMM=y
CONFIG_BLK_DEV_PMEM=y
"""

SLEEP = "CONFIG_SUSPEND=y\n"
DEBUG_FS = "CONFIG_DEBUG_FS=y\n"
TRACEPOINTS = "CONFIG_FTRACE=y\nCONFIG_ENABLE_DEFAULT_TRACERS=y\n"
HOTPLUG = ("CONFIG_SPARSEMEM_VMEMMAP=y\nCONFIG_MEMORY_HOTPLUG=y\nCONFIG_MEMORY_HOTREMOVE=y\n"
           "CONFIG_ZONE_DEVICE=y\n")
ALL = SLEEP + DEBUG_FS + TRACEPOINTS + HOTPLUG
MODULE = "CONFIG_VIRTIO_PMEM_RUST=m\n"
BUILT_IN = "CONFIG_VIRTIO_PMEM_RUST=y\n"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A kernel.

    text   its lines of configuration, beside COMMON
    arch   its architecture, as kbuild calls it
    tools  variables of make that differ from the project's own
    debian whether Debian's configuration is the base; of its thousands of modules none is built
    """
    text: str
    arch: str = "x86_64"
    tools: tuple = ()
    debian: bool = False


def off(*names):
    """Return lines that leave options out."""
    return "".join(f"# CONFIG_{name} is not set\n" for name in names)


VARIANTS = {
    "module": Variant(MODULE + ALL),
    "built-in": Variant(BUILT_IN + ALL),
    "no-sleep": Variant(MODULE + DEBUG_FS + TRACEPOINTS + HOTPLUG + off("PM_SLEEP")),
    "no-debugfs": Variant(BUILT_IN + SLEEP + HOTPLUG + off("DEBUG_FS")),
    "no-tracepoints": Variant(BUILT_IN + SLEEP + DEBUG_FS + HOTPLUG + off("TRACEPOINTS")),
    "no-hotplug": Variant(MODULE + SLEEP + DEBUG_FS + TRACEPOINTS + off("MEMORY_HOTPLUG")),
    "one-processor": Variant(BUILT_IN + ALL.replace("CONFIG_SMP=y\n", "") + off("SMP")),
    "realtime": Variant(MODULE + ALL + "CONFIG_EXPERT=y\nCONFIG_PREEMPT_RT=y\n"),
    "gcc": Variant(MODULE + ALL, tools=(("LLVM", ""), ("CC", "ccache gcc"))),
    "arm64": Variant(MODULE + ALL + "CONFIG_CMDLINE=\"\"\n", arch="arm64"),
    # Debian's libnvdimm is a module, which the kernel crate cannot call.
    "debian": Variant(BUILT_IN + "CONFIG_LIBNVDIMM=y\nCONFIG_DEBUG_INFO_NONE=y\n", debian=True),
}
