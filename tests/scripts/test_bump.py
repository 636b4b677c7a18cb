# SPDX-License-Identifier: GPL-2.0
"""A newer kernel source is pinned only if everything works there."""

import pytest

import bump
import kernel_source
import settings
import steps
from kernel_source import Pin

OLD, NEW = Pin("linux-source-7.3_1.tar.xz", "0" * 64), Pin("linux-source-7.4_1.tar.xz", "1" * 64)


def fail(*_):
    """Break."""
    raise steps.Trouble("why")


@pytest.fixture(autouse=True)
def debian(tmp_path, monkeypatch):
    """An archive with a newer source, on which everything works."""
    monkeypatch.setattr(kernel_source, "PIN", tmp_path / "kernel.pin")
    monkeypatch.setattr(bump, "FOLDER", tmp_path / "bump")
    kernel_source.write_pin(OLD)
    monkeypatch.setenv("KDIR", "")  # bump sets them
    monkeypatch.setenv("O", "")
    monkeypatch.setattr(kernel_source, "newest", lambda: NEW)
    monkeypatch.setattr(kernel_source, "unpack", lambda _, target: target.mkdir(parents=True))
    monkeypatch.setattr(kernel_source, "given", lambda: None)
    monkeypatch.setattr(kernel_source, "tree", lambda: None)
    monkeypatch.setattr(bump.kernel, "ready", lambda _: None)
    monkeypatch.setattr(bump.kunit, "run", lambda: (3, 0))


def test_the_newest_source_is_pinned(capsys):
    assert bump.main() == 0
    assert kernel_source.read_pin() == NEW and not bump.FOLDER.exists()
    assert "linux-source-7.4=1 is pinned" in capsys.readouterr().out


def test_the_pinned_source_is_the_newest(monkeypatch, capsys):
    monkeypatch.setattr(kernel_source, "newest", lambda: OLD)
    monkeypatch.setattr(kernel_source, "unpack", pytest.fail)
    assert bump.main() == 0
    assert "is the newest" in capsys.readouterr().out


@pytest.mark.parametrize(("module", "name", "value", "text"), [
    (kernel_source, "tree", fail, "graft: why"),
    (bump.kernel, "ready", fail, "release kernel: why"),
    (bump.kunit, "run", fail, "kunit: why"),
    (bump.kunit, "run", lambda: (3, 1), "kunit: 3 passed, 1 failed"),
])
def test_what_breaks_is_reported(monkeypatch, capsys, module, name, value, text):
    monkeypatch.setattr(module, name, value)
    assert bump.main() == 1
    assert kernel_source.read_pin() == OLD
    assert f"linux-source-7.4=1: {text}" in capsys.readouterr().err


def test_a_given_tree_is_refused(monkeypatch):
    monkeypatch.setenv("KDIR", "/linux")
    with pytest.raises(settings.BadSetting, match="KDIR"):
        bump.main()
