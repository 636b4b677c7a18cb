# SPDX-License-Identifier: GPL-2.0
"""The module for a stock kernel: what is refused, and with which remedy; what it is made of."""

import re
import subprocess

import pytest

import deb
import debian_root
import module
import settings

CONFIG = """\
CONFIG_RUST=y
CONFIG_RUSTC_VERSION_TEXT="rustc 1.85.1 (fake)"
CONFIG_VIRTIO=y
CONFIG_LIBNVDIMM=m
CONFIG_BLK_DEV_PMEM=m
"""


@pytest.fixture(name="build")
def make_build(tmp_path):
    """A function that runs kernel_ext/build on headers with a configuration; returns its words."""
    tools = {"rustc": "rustc 1.85.1 (fake)", "bindgen": "bindgen 0.71.1"}

    def run(config, **changed):
        headers = tmp_path / "headers"
        headers.mkdir()
        if config is not None:
            (headers / ".config").write_text(config)
        (headers / "Makefile").write_text(changed.pop("makefile", ""))
        release = changed.pop("release", "7.3.9-none")
        for name, version in (tools | changed).items():
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{version}'\n")
            (tmp_path / name).chmod(0o755)
        done = subprocess.run(
            [settings.ROOT / "kernel_ext/build", release, tmp_path / "out"], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "KERNEL_HEADERS": str(headers)})
        assert done.returncode == 77
        return done.stdout
    return run


def test_no_headers(build):
    assert "apt install linux-headers-7.3.9-none" in build(None)


def test_no_rust(build):
    text = build("CONFIG_VIRTIO=y\n")
    assert "built without Rust" in text
    assert "Debian's from 7.3" in text


def test_other_version(build):
    assert "for Linux 7.3, and each version has other" in build(CONFIG, release="7.4.0-none")


def test_no_libnvdimm(build):
    assert "CONFIG_LIBNVDIMM=m" in build(CONFIG.replace("LIBNVDIMM", "OTHER"))


def test_other_compiler(build):
    text = build(CONFIG, rustc="rustc 1.96.0 (fake)")
    assert "needs rustc 1.85.1 (fake), and rustc is rustc 1.96.0 (fake)" in text


def test_no_metadata(build):
    assert "lack Rust's metadata" in build(CONFIG)


def test_no_source(build):
    text = build(CONFIG, makefile="include /usr/src/common/Makefile\n")
    assert "apt install linux-source-7.3" in text


def test_sources():
    """The module is made of the driver, the abstractions and the shim."""
    names = module.sources()
    assert {"Kbuild", "kernel_ext/build", "rust/kernel/virtio.rs", "rust/helpers/virtio.c",
            "drivers/nvdimm/virtio_pmem_rust/engine.rs"} <= {*names}
    assert not [name for name in names if name.startswith(("patches/", "samples/", "build/"))]


def test_releases():
    """The tests' kernel is the one whose source is pinned; other names are not Debian's."""
    assert debian_root.RELEASE.fullmatch(debian_root.release())
    assert not debian_root.RELEASE.fullmatch("7.3.4-arch1-1")
    assert "linux-kbuild-7.3.4+deb13" in debian_root.kernel_packages("7.3.4+deb13-amd64")


def test_package_has_the_drivers_version():
    assert re.fullmatch(r"[\d.]+", deb.version())
