# SPDX-License-Identifier: GPL-2.0
"""The module for a kernel whose headers hold Rust's metadata: Debian's, to which it was added."""

import shutil

import pytest

import debian_root
import module
import settings
import steps


@pytest.mark.skipif(not settings.flag("LONG"), reason="takes minutes: LONG=1")
def test_headers_with_metadata():
    """kernel_ext/build takes the metadata of the headers, and the usual command builds, too."""
    release = debian_root.release()
    out, log = module.out(release), steps.log_path("module-metadata")
    steps.run(module.command(release), log)
    headers, source, again = out / "kernel", out / "source", out / "again"
    for folder in (source, again):
        shutil.rmtree(folder, ignore_errors=True)
    for name in module.sources():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(settings.ROOT / name, source / name)

    def run(*words):
        steps.run(debian_root.enter(debian_root.root(release), out, *words), log, append=True)

    run("env", f"KERNEL_HEADERS={headers}", source / "kernel_ext/build", release, again)
    assert "metadata  of the headers" in log.read_text()
    # Last, because kbuild's outputs are then among the sources.
    run("make", "-C", headers, f"M={source}", "modules")
    for folder in (source, again):
        path = folder / "virtio_pmem_rust.ko"
        assert steps.output(["modinfo", "-F", "vermagic", path]).split()[0] == release
