# SPDX-License-Identifier: GPL-2.0
"""A newer kernel source is pinned only if everything works there."""

import contextlib

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
    monkeypatch.setattr(settings, "BUILD", tmp_path)
    monkeypatch.setattr(bump, "FOLDER", tmp_path / "bump")
    kernel_source.write_pin(OLD)
    monkeypatch.setenv("KDIR", "")  # bump sets them
    monkeypatch.setenv("O", "")
    monkeypatch.setattr(kernel_source, "newer", lambda _: NEW)
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
    monkeypatch.setattr(kernel_source, "newer", lambda _: None)
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


@pytest.mark.parametrize("name", ["KDIR", "ONLY", "SEED"])
def test_variables_that_change_the_trial_are_refused(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(settings.BadSetting, match=name):
        bump.main()


def test_no_other_run_builds_meanwhile(monkeypatch):
    """The steps that build by themselves hold the lock themselves."""
    held, seen = [], {}

    @contextlib.contextmanager
    def alone():
        held.append(True)
        yield
        held.pop()

    def note(module, name):
        function = getattr(module, name)

        def noted(*args):
            seen[name] = bool(held)
            return function(*args)
        monkeypatch.setattr(module, name, noted)

    monkeypatch.setattr(steps, "alone", alone)
    for module, name in ((kernel_source, "newer"), (kernel_source, "unpack"),
                         (kernel_source, "tree"), (bump.kernel, "ready"), (bump.kunit, "run")):
        note(module, name)
    assert bump.main() == 0
    assert seen == {"newer": True, "unpack": True, "tree": True, "ready": False, "run": False}
