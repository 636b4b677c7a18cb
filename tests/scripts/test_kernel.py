# SPDX-License-Identifier: GPL-2.0
"""Kernel trees, configurations and their checks."""

import json
import os
import re
import shutil
import tarfile
import time

import kernel_pieces
import pytest

import config
import kernel_source
import kunit
import settings
import steps


def tree(path, *version):
    """Make a kernel tree of some version, with everything that the driver needs."""
    path.mkdir(parents=True, exist_ok=True)
    kernel_pieces.make(path)
    names = ("VERSION", "PATCHLEVEL", "SUBLEVEL")
    (path / "Makefile").write_text(
        "".join(f"{name} = {value}\n" for name, value in zip(names, version, strict=True)))
    return path


@pytest.mark.parametrize("version", [(7, 2, 12), (7, 3, 0), (7, 10, 1), (8, 0, 0)])
def test_tree_of_any_version_is_taken(tmp_path, version):
    kernel_source.check(tree(tmp_path, *version))


def test_tree_that_lacks_something_is_refused(tmp_path):
    kernel_pieces.change(tree(tmp_path, 9, 1, 0), "SpinLockIrq", "SpinLockSoft")
    with pytest.raises(steps.Trouble, match=r"SpinLockIrq(.|\n)*Linux 9\.1\.0: use"):
        kernel_source.check(tmp_path)


def test_a_file_that_is_not_in_utf8_is_searched_all_the_same(tmp_path):
    for path in ("drivers/nvdimm/pmem.c", "Makefile"):
        with open(tree(tmp_path, 7, 3, 4) / path, "ab") as file:
            file.write(b"# \xe9\n")
        kernel_source.check(tmp_path)


def test_what_is_no_tree_is_refused(tmp_path):
    with pytest.raises(steps.Trouble, match="no kernel source tree"):
        kernel_source.check(tmp_path)
    (tmp_path / "Makefile").write_text("all:\n")
    with pytest.raises(steps.Trouble, match="not that of a kernel"):
        kernel_source.check(tmp_path)


def test_tree_that_was_built_in_place_is_refused(tmp_path):
    (tree(tmp_path, 7, 3, 4) / ".config").touch()
    with pytest.raises(steps.Trouble, match="mrproper"):
        kernel_source.check(tmp_path)


class Debian(kernel_source.Apt):
    """Debian's archive: versions and contents of source packages."""
    packages = {}
    downloads = []

    def update(self, suites):
        """Nothing has to be fetched."""

    def has(self, package):
        return package in self.packages

    def newest(self):
        return max(self.packages, default=None)

    def download(self, package):
        """Return a file for the made-up dpkg-deb to unpack."""
        self.downloads.append(package)
        (self.folder / "content").write_text(self.packages[package])
        return self.folder / "content"


NO_PIN = kernel_source.Pin("", "")


@pytest.fixture(name="debian")
def make_debian(tmp_path, monkeypatch):
    """A made-up archive, and a checkout that pins its first package."""
    unpack = """
mkdir -p "$3/usr/src/linux-source-7/" && cd "$3/usr/src" && cp "$2" linux-source-7/Makefile &&
tar -cJf linux-source-7.tar.xz --mtime=@1 --owner=0 --group=0 --numeric-owner linux-source-7
"""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dpkg-deb").write_text(f"#!/bin/sh -e\n{unpack}")
    (tmp_path / "bin/dpkg-deb").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(settings, "BUILD", tmp_path / "build")
    monkeypatch.setattr(kernel_source, "PIN", tmp_path / "kernel.pin")
    monkeypatch.setattr(kernel_source, "Apt", Debian)
    monkeypatch.setattr(kernel_source, "check_fetching", lambda: None)
    monkeypatch.setattr(Debian, "packages", {"linux-source-7.3=7.3.4-1": "VERSION = 7"})
    monkeypatch.setattr(Debian, "downloads", [])
    kernel_source.write_pin(kernel_source.newer(NO_PIN))
    Debian.downloads.clear()
    return Debian


def makefile():
    """Return the content that distinguishes the made-up sources."""
    return (kernel_source.own() / "Makefile").read_text()


def test_the_project_pins_a_source():
    pin = kernel_source.read_pin()
    assert re.fullmatch(r"linux-source-[\d.]+=[\w.~+-]+", pin.package)
    assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256)


def test_the_pinned_source_is_used_although_there_is_a_newer_one(debian, capsys):
    debian.packages["linux-source-7.4=7.4.1-1"] = "VERSION = 8"
    assert makefile() == "VERSION = 7"
    kernel_source.read_pin().path.write_text("half")
    assert makefile() == "VERSION = 7" and debian.downloads == []  # it is unpacked
    shutil.rmtree(settings.BUILD)
    assert makefile() == "VERSION = 7" and debian.downloads == ["linux-source-7.3=7.3.4-1"]
    assert "no longer" not in capsys.readouterr().err


def test_another_pin_is_another_tree(debian, capsys):
    makefile()
    pin = kernel_source.read_pin()
    debian.packages["linux-source-7.4=7.4.1-1"] = "VERSION = 8"
    former = pin.path
    kernel_source.write_pin(kernel_source.newer(pin))
    assert makefile() == "VERSION = 8"
    assert not former.exists()
    (settings.BUILD / "linux/Makefile").write_text("an edit")
    kernel_source.write_pin(pin)
    assert makefile() == "VERSION = 7"
    assert (settings.BUILD / "linux.old/Makefile").read_text() == "an edit"
    assert f"is now {settings.BUILD / 'linux.old'}" in capsys.readouterr().err


def test_the_newest_source_is_used_if_the_pinned_one_is_gone(debian, capsys):
    kernel_source.read_pin().path.unlink()
    debian.packages = {"linux-source-7.4=7.4.1-1": "VERSION = 8"}
    for _ in range(2):
        assert makefile() == "VERSION = 8"
        assert "no longer has linux-source-7.3=7.3.4-1, which" in capsys.readouterr().err
    shutil.rmtree(settings.BUILD)  # another checkout
    (tarball,) = settings.cache().glob("linux-source-7.4*")
    tarball.with_suffix(".xz.sha256").touch()  # an older version of the tools wrote such files
    assert makefile() == "VERSION = 8"
    assert debian.downloads == ["linux-source-7.4=7.4.1-1"]


def test_a_source_that_is_not_the_pinned_one_is_refused(debian):
    kernel_source.read_pin().path.unlink()
    debian.packages = {"linux-source-7.3=7.3.4-1": "VERSION = 666"}
    with pytest.raises(steps.Trouble, match="not what kernel.pin asks for.*run 'make bump'"):
        makefile()
    assert not list(settings.cache().iterdir())


def test_only_a_newer_source_is_downloaded(debian):
    pin = kernel_source.read_pin()
    assert kernel_source.newer(pin) is None and debian.downloads == []
    pin.path.unlink()
    assert kernel_source.newer(pin) is None
    wrong = kernel_source.Pin(pin.name, "0" * 64)
    assert kernel_source.newer(wrong) == pin and len(debian.downloads) == 2


@pytest.mark.parametrize("text", ["", "abc  linux-source-7.3_1.tar.xz\n", "0" * 64 + "\n"])
@pytest.mark.usefixtures("debian")
def test_a_malformed_pin_is_refused(text):
    kernel_source.PIN.write_text(text)
    with pytest.raises(steps.Trouble, match="kernel.pin does not name one .*: restore it"):
        kernel_source.own()


def test_another_layout_of_the_package_is_refused(tmp_path):
    with pytest.raises(steps.Trouble, match="KDIR="):
        kernel_source.only(tmp_path, "usr/src/linux-source-*.tar.*")


@pytest.mark.usefixtures("debian")
def test_downloads_of_killed_runs_are_removed():
    for name, age in (("new", 0), ("old", 25 * 3600)):
        (settings.cache() / f".fetch-{name}").mkdir()
        os.utime(settings.cache() / f".fetch-{name}", (time.time() - age,) * 2)
    kernel_source.newer(NO_PIN)
    assert [path.name for path in settings.cache().glob(".fetch-*")] == [".fetch-new"]


def test_tree_gets_its_name_when_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    tree(tmp_path / "linux-source-7.3", 7, 3, 4)
    tarball = tmp_path / "x.tar"
    with tarfile.open(tarball, "w") as archive:
        archive.add(tmp_path / "linux-source-7.3", "linux-source-7.3")
    kernel_source.unpack(tarball, tmp_path / "build/linux")
    assert kernel_source.version(tmp_path / "build/linux") == (7, 3, 4)
    tarball.write_bytes(tarball.read_bytes()[:600])
    with pytest.raises(steps.Trouble):
        kernel_source.unpack(tarball, tmp_path / "other/linux")
    assert not list((tmp_path / "other").iterdir())


def test_without_a_network_the_ways_out_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(kernel_source.Apt, "command", lambda *_: ["sh", "-c", "echo why; exit 100"])
    with pytest.raises(steps.Trouble, match=r"(?s)^[^\n]*http_proxy[^\n]*KDIR=.*why") as failure:
        kernel_source.Apt(tmp_path / "private").update(["sid"])
    assert "private" not in str(failure.value).partition("\n")[0]


def test_option_that_was_not_taken_is_named():
    wanted = config.options("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\n\n# why\nCONFIG_D=17\n")
    merged = config.options("CONFIG_A=y\nCONFIG_C=y\nCONFIG_D=17\n")
    assert config.refused(wanted, merged) == ["CONFIG_C=m (is y)"]
    assert config.refused(wanted, {}) == [
        "CONFIG_A=y (is n)", "CONFIG_C=m (is n)", "CONFIG_D=17 (is n)"]


def test_fragments_are_well_formed():
    for kernel in config.FRAGMENTS:
        assert config.options(config.fragments(kernel))
    with pytest.raises(steps.Trouble, match="CONFIG_A y"):
        config.options("CONFIG_A y")


# kconfig: tinyconfig has no auto.conf yet, so it writes one.
MAKE = """
cd {out}
if [ "$1" = tinyconfig ]; then
    : >.config
    mkdir -p include/config
    [ -e include/config/auto.conf ] || : >include/config/auto.conf
fi
touch .config
"""


@pytest.mark.parametrize("built", [False, True])
def test_an_unchanged_configuration_is_older_than_what_was_built_of_it(tmp_path, monkeypatch,
                                                                      built):
    """A directory from the cache of builds has a configuration and no auto.conf of it."""
    monkeypatch.setattr(steps, "log_path", lambda name: tmp_path / f"{name}.log")
    monkeypatch.setattr(config, "fragments", lambda name: "CONFIG_A=y\n")
    (tmp_path / ".config").write_text("CONFIG_A=y\n")
    os.utime(tmp_path / ".config", (1, 1))
    auto = tmp_path / "include/config/auto.conf"
    if built:
        auto.parent.mkdir(parents=True)
        auto.touch()
    (tmp_path / "make").write_text(MAKE.format(out=tmp_path))
    config.merge("release", tmp_path, ["sh", tmp_path / "make"])
    newer = (tmp_path / ".config").stat().st_mtime_ns > auto.stat().st_mtime_ns
    assert newer != built


def suite(name, *cases, sub_groups=(), **counts):
    """Return a part of kunit.py's report."""
    empty = dict.fromkeys(("passed", "failed", "crashed", "skipped", "errors"), 0)
    return {"name": name, "test_cases": [{"name": case, "status": status}
                                         for case, status in cases],
            "sub_groups": list(sub_groups), "misc": empty | counts}


def test_report_of_kunit():
    inner = suite("suite", ("good", "PASS"), ("bad", "FAIL"), ("none", "SKIP"), ("gone", "ERROR"))
    report = suite("all", sub_groups=[inner], passed=4, failed=2, crashed=1, errors=1, skipped=1)
    assert kunit.counts(report) == (4, 4)
    assert kunit.failures(report) == ["FAIL: suite.bad", "ERROR: suite.gone"]


# A kunit.py whose report and exit status are given in variables.
KUNIT = """
import json, os, sys
if report := os.environ["REPORT"]:
    (name,) = (word[7:] for word in sys.argv if word.startswith("--json="))
    with open(name, "w") as file:
        file.write(report)
with open(sys.argv[sys.argv.index("--build_dir") + 1] + "/test.log", "w") as file:
    file.write(os.environ.get("CONSOLE", ""))
sys.exit(int(os.environ["STATUS"]))
"""


@pytest.fixture(name="run_kunit")
def make_run_kunit(tmp_path, monkeypatch):
    """A function that runs the made-up kunit.py; it returns how many tests passed and failed."""
    path = tmp_path / "tools/testing/kunit/kunit.py"
    path.parent.mkdir(parents=True)
    path.write_text(KUNIT)

    def run(report, status, console=""):
        monkeypatch.setenv("REPORT", json.dumps(report) if report else "")
        monkeypatch.setenv("STATUS", str(status))
        monkeypatch.setenv("CONSOLE", console)
        return kunit.counts(kunit.execute(tmp_path, tmp_path, tmp_path / "log"))
    return run


@pytest.mark.parametrize(("report", "status", "result"), [
    (suite("all", passed=3), 0, (3, 0)),
    (suite("all", passed=3, failed=1), 1, (3, 1)),
    (suite("all", passed=3), 1, None),  # no test failed, but kunit.py did
    (None, 1, None),
])
def test_exit_status_of_kunit(run_kunit, report, status, result):
    if result:
        assert run_kunit(report, status) == result
    else:
        with pytest.raises(steps.Trouble, match="failed"):
            run_kunit(report, status)


@pytest.mark.parametrize("line", [
    "BUG: KASAN: slab-use-after-free in flush+0x1/0x2",
    "WARNING: drivers/nvdimm/nd_virtio.c:3 at flush+0x1/0x2, CPU#0: kworker/1",
    "ODEBUG: free active (active state 0) object: 0000 object type: work_struct",
    'kmemleak:   comm "kunit_try_catch", pid 17, jiffies 4294937296',
    "UBSAN: array-index-out-of-bounds in drivers/nvdimm/nd_virtio.c:1:2",
    "Kernel panic - not syncing: Kernel mode fault at addr 0x0, ip 0x0",
    "kernel BUG at rust/helpers/bug.c:7!",
    "Oops: general protection fault, maybe for address 0x0: 0000 [#1]",
    "rust_kernel: panicked at drivers/nvdimm/virtio_pmem_rust/flush.rs:7:9:",
    "INFO: task kworker/0:1:9 blocked for more than 120 seconds.",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "WARNING: suspicious RCU usage",
])
def test_a_report_of_the_kernel_fails_the_run(run_kunit, capsys, line):
    assert run_kunit(suite("all", passed=3), 0, f"[    1.2] {line}\n") == (3, 1)
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("line", [
    "ODEBUG: object 00000000ee16973a is on stack 00000000ae57d474, but NOT annotated.",
    "WARNING: lib/debugobjects.c:672 at __debug_object_init+0x681/0x8f0, CPU#0: kunit/789",
    'kmemleak:   comm "swapper", pid 0, jiffies 4294937296',
    "rust_kernel: driver bug: a work item is queued on a second queue",
])
def test_what_a_good_run_prints_does_not_count(run_kunit, line):
    assert run_kunit(suite("all", passed=3), 0, f"{line}\n") == (3, 0)
