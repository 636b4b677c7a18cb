# SPDX-License-Identifier: GPL-2.0
"""Kernel trees, configurations and their checks."""

import tarfile

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


def cache_tarball(folder, name):
    """Put a verified tarball into a cache."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(name)
    note = path.with_name(name + ".sha256")
    note.write_text(kernel_source.file_digest(path) + "\n")
    return path


def test_newest_whole_tarball_of_the_cache_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_source.cached() is None
    old = cache_tarball(settings.cache(), "linux-source-7.9_7.9.1-1.tar.xz")
    new = cache_tarball(settings.cache(), "linux-source-7.10_7.10.2-1.tar.xz")
    assert kernel_source.cached() == new
    new.write_text("half")
    assert kernel_source.cached() == old


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


@pytest.mark.parametrize(("text", "result"), [
    ("Testing complete. Ran 357 tests: passed: 357", (357, 0)),
    ("Testing complete. Ran 9 tests: passed: 4, failed: 2, crashed: 1, errors: 1, skipped: 1",
     (4, 4)),
    ("make: *** [Makefile] Error 2", None),
])
def test_counts_of_kunit(text, result):
    assert kunit.counts(text) == result
