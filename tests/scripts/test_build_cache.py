# SPDX-License-Identifier: GPL-2.0
"""Finished builds are taken from the cache when nothing has changed, and only then."""

import os

import pytest

import build_cache
import kernel_source
import settings
import steps
import toolchain

PARTS = ("vmlinux", "modules", "usr/tool")
TOOLS = {"LLVM": "1", "RUSTC": "rustc", "BINDGEN": "bindgen"}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Keep away from the project's own cache and logs."""
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(name="provide")
def make_provide(tmp_path):
    """A function that provides a build in a checkout; it returns whether it was built."""
    def provide(checkout, digest="d1"):
        out, built = tmp_path / checkout, []

        def build():
            for part in ("vmlinux", "modules/a.ko", "usr/tool", "vmlinux.o"):
                (out / part).parent.mkdir(parents=True, exist_ok=True)
                (out / part).write_text(f"{part} of {digest}\n" * 1000)
            built.append(True)
        build_cache.provide("release", lambda: digest, out, PARTS, build)
        assert (out / "modules/a.ko").read_text().startswith(f"modules/a.ko of {digest}\n")
        return bool(built)
    return provide


def test_a_second_checkout_builds_nothing(tmp_path, provide):
    assert provide("a") and provide("b") is False
    assert not (tmp_path / "b/vmlinux.o").exists()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        ".built", "modules", "usr", "vmlinux"]


def test_a_change_is_built(provide):
    assert provide("a") and provide("b", "d2")
    assert provide("a", "d2") is False and provide("a") is False


def test_what_is_there_is_left_alone(tmp_path, provide):
    provide("a")
    os.utime(tmp_path / "a/vmlinux", (1, 1))
    assert provide("a") is False
    assert (tmp_path / "a/vmlinux").stat().st_mtime == 1
    (tmp_path / "a/usr/tool").unlink()
    assert provide("a") is False and (tmp_path / "a/usr/tool").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda _: b"",
                                    lambda data: data[:60] + b"!" + data[61:]])
def test_a_damaged_archive_is_built_anew(provide, damage):
    provide("a")
    path = build_cache.archive("release", "d1")
    path.write_bytes(damage(path.read_bytes()))
    assert provide("b") and provide("c") is False


def test_an_archive_that_cannot_be_unpacked_now_is_kept(tmp_path, monkeypatch, provide, capsys):
    provide("a")
    path, whole = build_cache.archive("release", "d1"), os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))  # as on a full disk, tar fails
    assert provide("b") and path.exists()
    assert f"{path} cannot be unpacked" in capsys.readouterr().err
    monkeypatch.setenv("PATH", whole)
    assert provide("c") is False


def test_an_archive_may_vanish_while_it_is_used(tmp_path, monkeypatch, provide):
    provide("a")
    monkeypatch.setattr(build_cache.os, "utime", lambda path: os.stat(tmp_path / "gone"))
    assert provide("b") is False


# As in kbuild, an output is made again if its input is newer. Each build has a time of its own.
MAKEFILE = """
$(O)/auto.conf: $(O)/.config ; cp $< $@; touch -d @$(NOW) $@
$(O)/vmlinux.o: $(O)/auto.conf ; cp $< $@; touch -d @$(NOW) $@
$(O)/vmlinux: $(O)/vmlinux.o ; cp $< $@; touch -d @$(NOW) $@
"""


@pytest.mark.parametrize("builds", [
    [("a", "B", 1), ("a", "A", 1), ("a", "B", 1), ("a", "B", 2)],
    [("b", "B", 1), ("a", "A", 1), ("a", "B", 1), ("a", "B", 2)],
])
def test_no_build_continues_with_objects_of_another(tmp_path, builds):
    (tmp_path / "Makefile").write_text(MAKEFILE)
    for now, (checkout, options, version) in enumerate(builds):
        out = tmp_path / checkout

        def build(out=out, options=options, now=now):
            path = out / ".config"
            if not path.exists() or path.read_text() != options:
                path.write_text(options)
                os.utime(path, (now, now))
            steps.run(["make", "-C", tmp_path, f"O={out}", f"NOW={now}", out / "vmlinux"],
                      tmp_path / "log")
        build_cache.provide("release", lambda key=f"{options}{version}": key, out,
                            (".config", "vmlinux"), build)
        assert (out / "vmlinux").read_text() == options


def test_a_build_whose_inputs_change_meanwhile_is_not_kept(tmp_path, capsys):
    keys, out = ["edited", "first"], tmp_path / "a"
    build_cache.provide("release", keys.pop, out, (), lambda: (out / "vmlinux").touch())
    assert "not kept" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["vmlinux"]
    assert not build_cache.archive("release", "first").exists()


def test_a_tree_of_the_users_is_always_built_and_never_kept(provide):
    assert provide("a", None) and provide("a", None)
    assert not build_cache.archive("release", "d1").parent.exists()


def test_an_unusable_cache_does_not_fail_the_build(tmp_path, provide, capsys):
    (tmp_path / "cache").write_text("")
    assert provide("a")
    assert "not kept" in capsys.readouterr().err


def test_the_oldest_archives_are_removed(monkeypatch, provide):
    monkeypatch.setattr(build_cache, "NEWEST", 4)
    for number in range(6):
        provide("a", f"d{number}")
        os.utime(build_cache.archive("release", f"d{number}"), (number, number))
    provide("b", "d2")  # used, so not among the oldest
    provide("a", "last")
    kept = [number for number in range(6)
            if build_cache.archive("release", f"d{number}").exists()]
    assert kept == [2, 4, 5]


@pytest.fixture(name="tree")
def make_tree(tmp_path):
    """A function that makes an unpacked tree with a file that was grafted on it."""
    def tree(name, files=(("drivers/a.c", "int a;"),)):
        path = tmp_path / name
        (path / "drivers").mkdir(parents=True)
        (path / "drivers/kernel.c").write_text("kernel")
        (path / kernel_source.NOTE).write_text("wanted name sha256\n")
        os.utime(path / "drivers/kernel.c", (1, 1))
        os.utime(path / kernel_source.NOTE, (2, 2))
        for file, text in files:
            (path / file).parent.mkdir(exist_ok=True)
            (path / file).write_text(text)
        return path
    return tree


def test_the_digest_is_of_what_gets_into_the_kernel(tree):
    one = kernel_source.digest(tree("one"))
    assert kernel_source.digest(tree("two")) == one
    text = (("drivers/a.c", "int a;"), ("Documentation/a.rst", "a"), (".note", ""))
    assert kernel_source.digest(tree("three", text)) == one
    assert kernel_source.digest(tree("four", (("drivers/a.c", "int b;"),))) != one
    five = tree("five")
    (five / "drivers/kernel.c").write_text("an edit")
    assert kernel_source.digest(five) != one
    os.utime(five / "drivers/kernel.c", (1, 1))  # as cp -p does
    old = kernel_source.digest(five)
    (five / "drivers/kernel.c").unlink()
    assert len({one, old, kernel_source.digest(five)}) == 3


def test_the_key_depends_on_tools_configuration_and_environment(monkeypatch, tree):
    monkeypatch.setattr(toolchain, "versions", lambda _, tools: [tools["RUSTC"]])
    path = tree("one")
    one = build_cache.key(path, TOOLS, "CONFIG_A=y")
    assert one == build_cache.key(tree("two"), TOOLS, "CONFIG_A=y")
    assert one != build_cache.key(path, TOOLS, "CONFIG_A=m")
    assert one != build_cache.key(path, TOOLS | {"RUSTC": "other"}, "CONFIG_A=y")
    for name in ("KRUSTFLAGS", "KCFLAGS", "RUSTFLAGS_main.o", "KBUILD_BUILD_USER", "LOCALVERSION",
                 "HOSTCFLAGS", "LIBCLANG_PATH", "BINDGEN_EXTRA_CLANG_ARGS"):
        with monkeypatch.context() as given:
            given.setenv(name, "x")
            assert one != build_cache.key(path, TOOLS, "CONFIG_A=y"), name
    for name in ("HOSTNAME", "MAKEFLAGS", "PATH_OF_A_CHECKOUT"):
        monkeypatch.setenv(name, "x")
    assert one == build_cache.key(path, TOOLS, "CONFIG_A=y")
    monkeypatch.setattr(build_cache, "RECIPE", 0)
    assert one != build_cache.key(path, TOOLS, "CONFIG_A=y")
    monkeypatch.setenv("KDIR", str(path))
    assert build_cache.key(path, TOOLS, "CONFIG_A=y") is None


def test_versions_of_the_tools(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "output", lambda command, cwd: command[0])
    assert toolchain.versions(tmp_path, TOOLS) == [
        "clang", "ld.lld", "rustc", "bindgen", "sh", "ldd"]
    monkeypatch.setattr(steps, "output", lambda command, cwd: command[0] != "rustc" or None)
    with pytest.raises(steps.Trouble, match="rustc -vV gives no version"):
        toolchain.versions(tmp_path, TOOLS)


def test_the_version_of_libclang(tmp_path, monkeypatch):
    """The made-up bindgen prints its version, and its libclang's as a warning."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "tool").write_text('#!/bin/sh\ncase $1 in *.h) echo "clang 19" >&2; esac; echo 1\n')
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.setattr(toolchain, "llvm_tool", lambda *_: tmp_path / "tool")
    tools = TOOLS | {"RUSTC": tmp_path / "tool", "BINDGEN": tmp_path / "tool"}
    assert toolchain.versions(tmp_path, tools)[:5] == ["1", "1", "1", "1", "clang 19"]


def test_flags_of_the_users_are_joined(monkeypatch):
    monkeypatch.setenv("KCFLAGS", "-O1 -g")
    assert toolchain.build_variables("/b/linux", "/b/release", {}) == [
        "KCFLAGS=-fmacro-prefix-map=../linux/= -O1 -g"]
    monkeypatch.delenv("KCFLAGS")
    assert toolchain.build_variables("/b/linux", "/b/release", {}) == [
        "KCFLAGS=-fmacro-prefix-map=../linux/="]
