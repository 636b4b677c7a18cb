# SPDX-License-Identifier: GPL-2.0
"""QEMU= is a program, or a version that is fetched and started by its own loader."""

import subprocess

import pytest

import kernel_source
import qemu
import settings
import steps

MADISON = """
echo 'qemu-system-x86 | 1:11.1.3+ds-1~bpo13+1 | http://x trixie-backports/main amd64 Packages'
echo 'qemu-system-x86 | 1:10.0.13+ds-0+deb13u1 | http://x trixie/main amd64 Packages'
echo 'qemu-system-x86 | 1:7.2+dfsg-7 | http://x bookworm/main amd64 Packages'
"""


class Debian(kernel_source.Apt):
    """Debian's archive: QEMU in one package whose loader prints its arguments."""

    def update(self, suites):
        """Nothing has to be fetched."""

    def command(self, *_):
        return ["sh", "-c", MADISON]

    def get(self, *words, append=False):
        """Download a package."""
        package = self.folder / "package"
        for name, text in (("DEBIAN/control", "Package: q\nVersion: 1\nArchitecture: all\n"
                                              "Maintainer: m\nDescription: d\n"),
                           ("usr/lib64/ld-linux-x86-64.so.2", '#!/bin/sh\necho "$@"\n'),
                           ("usr/lib/x86_64-linux-gnu/libc.so.6", ""),
                           ("usr/wanted", " ".join(words))):
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text)
            (package / name).chmod(0o755)
        subprocess.run(["dpkg-deb", "-b", package, self.folder / "cache/archives/q.deb"],
                       check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    """An empty cache, and Debian's archive."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(kernel_source, "Apt", Debian)



def test_a_program_is_taken_as_it_is(monkeypatch):
    assert qemu.program() == "qemu-system-x86_64"
    monkeypatch.setenv("QEMU", "/opt/qemu")
    assert qemu.program() == "/opt/qemu"


@pytest.mark.parametrize(("number", "version", "suite"), [
    ("11.1", "1:11.1.3+ds-1~bpo13+1", "trixie-backports"),
    ("10.0", "1:10.0.13+ds-0+deb13u1", "trixie"),
])
def test_a_version_is_fetched_once(number, version, suite, monkeypatch):
    """It starts with its own libraries, firmware and modules."""
    monkeypatch.setenv("QEMU", number)
    program = qemu.program()
    root = settings.cache() / f"qemu-{number}-x86_64"
    assert program == str(root / "qemu-system-x86_64")
    wanted = (root / "usr/wanted").read_text()
    assert f"-t {suite} qemu-system-x86={version}" in wanted
    words = steps.output([program, "-M", "a b"])
    assert words == (f"--library-path {root}/usr/lib/x86_64-linux-gnu {root}/usr/bin/"
                     f"qemu-system-x86_64 -L {root}/usr/share/qemu -L {root}/usr/share/seabios "
                     f"-L {root}/usr/lib/ipxe/qemu -M a b")
    monkeypatch.setattr(Debian, "get", None)
    assert qemu.program() == program


def test_a_version_that_debian_lacks(monkeypatch):
    monkeypatch.setenv("QEMU", "7.2")
    with pytest.raises(steps.Trouble, match="QEMU=7.2: Debian has 10.0, 11.1: give one of these"):
        qemu.program()
