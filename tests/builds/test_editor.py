# SPDX-License-Identifier: GPL-2.0
"""What an editor reads leads to the files in git, and the compilers accept it."""

import os
import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import editor
import settings
import toolchain

DRIVER = "drivers/nvdimm/virtio_pmem_rust/virtio_pmem_rust_main.o"


@pytest.fixture(scope="session", name="project")
def make_project(prepared, tmp_path_factory):
    """The project for rust-analyzer."""
    overlay, project, _ = prepared
    return editor.rust_project(overlay, project, tmp_path_factory.mktemp("shadow") / "kernel")


def flags(object_file):
    """Return what rustc was given for an object besides what the project describes, too."""
    path = settings.out("kunit") / object_file
    line = path.with_name(f".{path.name}.cmd").read_text().splitlines()[0]
    return [word for word in shlex.split(line) if word.startswith(("-C", "-Z", "--target="))]


def compile_crate(rustc, crate, folder):
    """Compile a crate as the project describes it; return the Rust files that were read."""
    name, out = crate["display_name"], settings.out("kunit")
    command = [rustc, crate["root_module"], f"--crate-name={name}", "--crate-type=rlib",
               f"--edition={crate['edition']}", *(f"--cfg={cfg}" for cfg in crate["cfg"]),
               *flags("rust/kernel.o" if name == "kernel" else DRIVER), "--cap-lints=allow",
               "--emit=dep-info,metadata", f"--out-dir={folder}", "--sysroot=/dev/null", "-Lrust"]
    for dep in (dep["name"] for dep in crate["deps"]):
        fresh = folder / f"lib{dep}.rmeta"
        command.append(f"--extern={dep}={fresh}" if fresh.exists() else f"--extern={dep}")
    done = subprocess.run(command, env=os.environ | crate["env"] | {"RUSTC_BOOTSTRAP": "1"},
                          cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rules = (folder / f"{name}.d").read_text()
    return [Path(line[:-1]) for line in rules.splitlines() if line.endswith(".rs:")]


def test_rust_files_are_those_of_the_repository(prepared, project, tmp_path):
    """The crates compile, and each new Rust file belongs to one of them, not its copy."""
    overlay = prepared[0]
    rustc = toolchain.ready(overlay.kdir)["RUSTC"]
    ours = {str(overlay.root / name) for name in overlay.names if name.endswith(".rs")}
    read = Counter()
    for crate in project["crates"]:
        if crate["display_name"] == "kernel" or crate["root_module"] in ours:
            files = compile_crate(rustc, crate, tmp_path)
            read.update(map(str, files))
            # rust-analyzer finds a module only there.
            folders = crate.get("source", {}).get("include_dirs",
                                                  [Path(crate["root_module"]).parent])
            assert [path for path in files if not any(map(path.is_relative_to, folders))] == []
    assert [path for path in read if overlay.ours(path)] == []
    assert {path: read[path] for path in ours} == dict.fromkeys(ours, 1)


def test_c_files_are_those_of_the_repository(prepared):
    """Each new C file that was built has a command, which compiles it with the new headers."""
    overlay, _, builds = prepared
    sources = {name for name in overlay.names if name.endswith(".c")}
    built = {name for name in sources for folder in editor.BUILDS
             if (settings.out(folder) / name).with_suffix(".o").exists()}
    included = {name for name in sources if name.startswith("rust/helpers/")}
    entries = editor.compile_commands(overlay, builds)
    assert [entry["file"] for entry in entries] == \
        sorted(str(overlay.root / name) for name in built | included)
    for entry in entries:
        words = [word for word in shlex.split(entry["command"]) if not word.startswith("-Wp,-M")]
        done = subprocess.run([*words, "-fsyntax-only", "-H"], cwd=entry["directory"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        headers = re.findall(r"^\.+ (.*)", done.stderr, re.M)
        assert [path for path in headers if overlay.ours(path)] == []
