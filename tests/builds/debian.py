# SPDX-License-Identifier: GPL-2.0
"""Debian's own configuration of a kernel, from the package beside the source."""

import lzma
import tempfile
from pathlib import Path

import kernel_source
import packages
import settings
import steps

FLAVOUR = "config.amd64_none_amd64.xz"


def configuration(version):
    """Return Debian's configuration of Linux VERSION (like 7.3), or None if it has none."""
    path = settings.BUILD / f"builds/debian-{version}.config"
    if not path.exists():
        text = fetch(f"linux-config-{version}")
        if text is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def fetch(name):
    """Fetch a package of configurations; return that of Debian's usual kernel, or None."""
    packages.need("source")
    with tempfile.TemporaryDirectory(prefix="debian-config-") as folder:
        apt = kernel_source.Apt(Path(folder))
        for suites in (kernel_source.SUITES[:1], kernel_source.SUITES):
            apt.update(suites)
            if apt.has(name):
                break
        else:
            return None
        content = Path(folder) / "content"
        steps.run(["dpkg-deb", "-x", apt.download(name), content], apt.log, append=True)
        with lzma.open(next(content.glob(f"usr/src/*/{FLAVOUR}")), "rt", encoding="utf-8") as file:
            return file.read()
