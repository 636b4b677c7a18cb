# SPDX-License-Identifier: GPL-2.0
"""The driver can be chosen in each kind of kernel, and (LONG=1) built there without a warning."""

import re
import shutil

import debian
import pytest
from variants import BUILT_IN, COMMON, VARIANTS, Variant

import config
import kernel as kernels
import kernel_source
import settings
import steps
import toolchain

FOLDER = settings.BUILD / "builds"
LONG = settings.flag("LONG")

# Kconfig alone takes seconds for each, a build minutes.
FEW = ("module", "built-in", "arm64", "debian")


class Build:
    """A kernel to be configured and built in a folder, its own or a shared one."""

    def __init__(self, source, folder, variant):
        self.kdir, tools = source
        tools = tools | {"ARCH": variant.arch} | dict(variant.tools)
        self.variant = variant
        self.out = FOLDER / folder
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = steps.log_path(f"build-{folder}")
        tools = {name: value for name, value in tools.items() if value}
        self.make = kernels.make_command(self.kdir, self.out, tools)

    def configure(self):
        """Write the configuration; return the wanted and the final options."""
        wanted = config.options(self.variant.text)
        if self.variant.debian:
            version = ".".join(map(str, kernel_source.version(self.kdir)[:2]))
            text = debian.configuration(version)
            if text is None:
                pytest.skip(f"Debian has no configuration of Linux {version}")
            (self.out / ".config").write_text(text, encoding="utf-8")
            self.log.write_bytes(b"")
        else:
            steps.run([*self.make, "tinyconfig"], self.log)
            wanted = config.options(COMMON) | wanted
        with open(self.out / ".config", "a", encoding="utf-8") as file:
            for name, value in wanted.items():
                file.write(f"# {name} is not set\n" if value == "n" else f"{name}={value}\n")
        steps.run([*self.make, "olddefconfig"], self.log, append=True)
        return wanted, config.options((self.out / ".config").read_text(encoding="utf-8"))


@pytest.fixture(scope="session", name="source")
def make_source():
    """The grafted source, and the toolchain."""
    kdir = kernel_source.tree()
    return kdir, toolchain.ready(kdir)


@pytest.mark.parametrize("name", VARIANTS if LONG else FEW)
def test_can_be_configured(source, name):
    """Kconfig takes the driver in this kernel, as a module or built in."""
    # One folder serves all of an architecture: kconfig itself is built once.
    build = Build(source, f"kconfig-{VARIANTS[name].arch}", VARIANTS[name])
    assert config.refused(*build.configure()) == []


@pytest.mark.parametrize("line", [
    "CONFIG_LIBNVDIMM=m",  # the kernel crate cannot call a module
    "CONFIG_VIRTIO_PMEM=y",  # both cannot be built in
    "# CONFIG_RUST is not set",
])
def test_cannot_be_built_in(source, line):
    """Kconfig does not build the driver in where it would not work."""
    variant = Variant(f"{BUILT_IN}{line}\n")
    build = Build(source, f"kconfig-{variant.arch}", variant)
    refused = config.refused(*build.configure())
    assert any("CONFIG_VIRTIO_PMEM_RUST=y" in line for line in refused)


@pytest.mark.skipif(not LONG, reason="takes minutes each: LONG=1")
@pytest.mark.parametrize("name", VARIANTS)
def test_can_be_built(source, name):
    """The whole kernel is built and linked, and the overlay causes no warning."""
    build = Build(source, name, VARIANTS[name])
    assert config.refused(*build.configure()) == []
    targets = ["vmlinux"] if VARIANTS[name].debian else ["vmlinux", "modules"]
    steps.run([*build.make, *targets], build.log, append=True)
    said = build.log.read_text(errors="replace")
    assert re.findall(r"^.*(?:virtio_pmem|rust/).*warning.*|^warning: .*", said, re.M) == []
    shutil.rmtree(build.out)
