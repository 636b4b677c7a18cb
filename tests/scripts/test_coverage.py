# SPDX-License-Identifier: GPL-2.0
"""The profile that is written without LLVM's runtime, and how the coverage build begins."""

import shutil
import struct

import pytest

import build_cache
import coverage
import settings
import steps


@pytest.fixture(name="out")
def folders(tmp_path, monkeypatch):
    """The coverage build's empty folder, beside a KUnit build."""
    monkeypatch.setenv("O", str(tmp_path))
    for name in ("kunit/vmlinux.o", "kunit/linux", f"kunit/{build_cache.STAMP}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    settings.out("coverage").mkdir()
    return settings.out("coverage")


def names(folder):
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_the_kunit_build_is_copied(out):
    (out / "linux").write_text("restored, or built before the copy was interrupted")
    coverage.begin(out)
    assert names(out) == ["linux", "vmlinux.o"] and not (out / "linux").read_text()
    (out / "linux").write_text("built")
    coverage.begin(out)
    assert (out / "linux").read_text() == "built"


def test_an_interrupted_copy_does_not_count(out, monkeypatch):
    def half(source, target, **_):
        target.mkdir()
        shutil.copy(source / "vmlinux.o", target)
        raise KeyboardInterrupt
    with monkeypatch.context() as interrupted:
        interrupted.setattr(shutil, "copytree", half)
        with pytest.raises(KeyboardInterrupt):
            coverage.begin(out)
    assert names(out) == []
    coverage.begin(out)
    assert names(out) == ["linux", "vmlinux.o"]
    assert names(out.parent) == ["coverage", "kunit"]


def test_a_kunit_build_without_objects_is_not_copied(out):
    (out.parent / "kunit/vmlinux.o").unlink()
    coverage.begin(out)
    assert names(out) == []


@pytest.mark.parametrize(("rust", "llvm", "refused"), [
    (19, 19, None), (22, 19, None), (18, 19, "rustc .* RUSTC="), (19, 15, "llvm-profdata .* LLVM="),
])
def test_versions_of_llvm(monkeypatch, rust, llvm, refused):
    monkeypatch.setattr(steps, "output", lambda command: (
        f"release: 1.85.0\nLLVM version: {rust}.1.7" if command[0] == "rustc"
        else f"Debian LLVM version {llvm}.1.7\n  Optimized build."))
    tools = {"RUSTC": "rustc", "LLVM": "1"}
    if refused:
        with pytest.raises(steps.Trouble, match=refused):
            coverage.check_versions(tools)
    else:
        coverage.check_versions(tools)


def test_records_of_another_layout_are_refused(tmp_path, monkeypatch):
    """Two functions have three counters and one."""
    data = b"".join(struct.pack("<6QI12x", *range(6), number) for number in (3, 1))
    found = {"data": (4096, data), "counters": (8192, bytes(32)), "names": (9000, b"names")}
    monkeypatch.setattr(coverage, "sections", lambda *_: found)
    raw = coverage.profile("1", tmp_path / "linux", bytes(32))
    assert len(raw) == 16 * 8 + len(data) + 32 + 8
    assert struct.unpack_from("<2Q", raw, 8) == (10, 0) and raw.endswith(b"names\0\0\0")
    with pytest.raises(steps.Trouble, match="24 bytes of counters, not 32: see"):
        coverage.profile("1", tmp_path / "linux", bytes(24))
    for other in (data[:-8], b"".join(struct.pack("<7QI4x", *range(7), 2) for _ in range(2))):
        found["data"] = (4096, other)
        with pytest.raises(steps.Trouble, match="writes other records"):
            coverage.profile("1", tmp_path / "linux", bytes(32))
