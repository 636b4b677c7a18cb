# SPDX-License-Identifier: GPL-2.0
"""Nothing is installed without notice, and nothing at all that was not asked for."""

import sys

import pytest

import packages
import settings
import steps


@pytest.fixture(name="done", autouse=True)
def make_done(monkeypatch):
    """What is done, in order; a terminal, and a user who may install packages."""
    done = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(packages, "root", lambda: ["sudo", "-n"])
    monkeypatch.setattr(packages, "refresh", lambda: done.append("refresh"))
    monkeypatch.setattr(packages, "apt_get", lambda *words: done.append(" ".join(words)))
    monkeypatch.setattr(packages.time, "sleep", lambda seconds: done.append(f"{seconds} s"))
    monkeypatch.setattr(steps, "say", done.append)
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/usr/bin/{name}")
    return done


INSTALL = "install --no-install-recommends fio bc"
LINE = f"as root: sudo -n apt-get {INSTALL}"


def test_a_user_at_a_terminal_can_stop_an_installation(done):
    packages.install(["fio", "bc"])
    notice, *rest = done
    assert notice.startswith(f"{LINE}\n") and "Ctrl-C" in notice
    assert rest[:3] == ["5 s", "refresh", INSTALL]


@pytest.mark.parametrize("reason", ["CI", "no terminal"])
def test_without_a_user_it_begins_at_once(monkeypatch, done, reason):
    if reason == "CI":
        monkeypatch.setenv("CI", "true")
    else:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    packages.install(["fio", "bc"])
    assert done[:3] == [LINE, "refresh", INSTALL]


def test_with_no_install_packages_are_only_named(monkeypatch, done):
    monkeypatch.setenv("NO_INSTALL", "1")
    with pytest.raises(steps.Trouble, match="apt-get install fio bc"):
        packages.install(["fio", "bc"])
    assert done == []


def test_the_log_of_a_vain_installation_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "LOGS", tmp_path)
    monkeypatch.setattr(packages, "missing", lambda *_: ["fio"])
    with pytest.raises(steps.Trouble, match=f"still missing.*: fio\nlog: {tmp_path}/install.log"):
        packages.need("guest")
