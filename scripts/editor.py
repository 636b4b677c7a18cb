# SPDX-License-Identifier: GPL-2.0
"""Write the project files of editors: rust-project.json for rust-analyzer, compile_commands.json
for clangd.

A kernel is built from copies of the overlay's new files, and its own tools describe the copies.
Here their paths become those of the repository, so that an editor opens the files in git. The Rust
project is that of the KUnit build, the only one that compiles the tests, too.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import graft
import kernel
import kernel_source
import kunit
import packages
import settings
import steps
import toolchain

# Whose C files count, the best first.
BUILDS = (*kernel.KERNELS, "kunit")

# The directories with C files and Rust crates of ours.
OBJECTS = ("drivers/nvdimm/", "drivers/virtio/", "rust/")

# A new module in one of the kernel's files, with its attributes.
MODULE = re.compile(r"^((?:#\[.*\]\n)*)((?:pub(?:\([^)]*\))? )?)mod (\w+);$", re.M)


class Overlay:
    """The new files, which are in the repository and as copies in a kernel tree."""

    def __init__(self, kdir):
        self.kdir, self.root = kdir, settings.ROOT
        self.names = set(graft.new_files())

    def ours(self, path):
        """Return the repository's file of a copy, or None for a file of the kernel."""
        path = Path(path)
        if not path.is_relative_to(self.kdir):
            return None
        name = path.relative_to(self.kdir).as_posix()
        return self.root / name if name in self.names else None

    def with_headers(self, command):
        """Return a compiler's command that looks for headers in the repository first."""
        def twice(match):
            ours = self.root / match[1]
            return f"-I{ours} {match[0]}" if ours.is_dir() else match[0]
        return re.sub(rf"-I{re.escape(str(self.kdir))}/(\S+)", twice, command)


# rust-project.json

def redirect(overlay, path):
    """Return a Rust file of the kernel with its new modules taken from the repository.

    A file that `#[path]` names looks for its own modules beside itself: those of virtio.rs are not
    there. Within an inline module that has a path all modules are found as usual.
    """
    folder = path.parent if path.name in ("lib.rs", "mod.rs") else path.with_suffix("")

    def found_in_repository(match):
        attributes, visibility, name = match.groups()
        file = overlay.ours(folder / f"{name}.rs")
        if file is None:
            return match[0]
        # On one line, so that the others keep their numbers.
        return (f'{attributes}#[path = "{file.parent}"] mod overlay_{name} {{ '
                f"#[allow(unused_imports)] use super::*; pub mod {name}; }} "
                f"{attributes.replace(chr(10), ' ')}{visibility}use overlay_{name}::{name};")

    return MODULE.sub(found_in_repository, path.read_text(encoding="utf-8"))


def shadow(overlay, folder):
    """Fill a folder with the kernel crate's files: links, and copies that name new modules."""
    shutil.rmtree(folder, ignore_errors=True)
    crate = overlay.kdir / "rust/kernel"
    for path in crate.rglob("*.rs"):
        if overlay.ours(path):
            continue
        target = folder / path.relative_to(crate)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = redirect(overlay, path)
        if text == path.read_text(encoding="utf-8"):
            target.symlink_to(path)
        else:
            # An edit would be lost: it belongs into a patch.
            graft.write(target, text.encode(), 0o444)


def rust_project(overlay, project, folder):
    """Return the kernel's project with the paths of the repository; folder is for the shadow."""
    shadow(overlay, folder)
    for crate in project["crates"]:
        root = overlay.ours(crate["root_module"])
        if root:
            crate["root_module"] = str(root)
        elif crate["display_name"] == "kernel":
            crate["root_module"] = str(folder / "lib.rs")
            # A module is found only within these.
            include = crate["source"]["include_dirs"]
            include[include.index(str(overlay.kdir / "rust/kernel"))] = str(folder)
            include.append(str(overlay.root / "rust/kernel"))
    return project


# compile_commands.json

def compile_commands(overlay, builds):
    """Return how the new C files are compiled; the first build that has a file counts."""
    helpers = overlay.kdir / "rust/helpers/helpers.c"
    included = [overlay.root / name for name in overlay.names
                if name.startswith("rust/helpers/") and name.endswith(".c")]
    found = {}
    for entry in (entry for build in builds for entry in build):
        file = overlay.ours(entry["file"])
        files, more = [file] if file else [], ""
        if entry["file"] == str(helpers):
            # It includes the others, which by themselves lack its macro.
            files, more = included, " -D__rust_helper="
        for file in files:
            # The source comes last.
            words = overlay.with_headers(entry["command"].rsplit(" ", 1)[0])
            found.setdefault(file, entry | {"file": str(file), "command": f"{words}{more} {file}"})
    return [found[file] for file in sorted(found)]


# Both

def described(kdir, out):
    """Return what the kernel's tool writes about a build's C files."""
    target = out / "editor.json"  # kunit.py has a compile_commands.json
    steps.run([sys.executable, kdir / "scripts/clang-tools/gen_compile_commands.py",
               "-d", out, "-o", target, out], steps.log_path("editor"), append=True)
    return json.loads(target.read_text())


def prepare():
    """Build the objects of the Rust project; return the overlay, the kernel's files, the builds."""
    kernel_source.given()  # fail early
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build")
        tools = toolchain.ready(kdir) | {"ARCH": "um"}
        out, log = settings.out("kunit"), steps.log_path("editor")
        out.mkdir(parents=True, exist_ok=True)
        with steps.step("the driver and its tests (UML)"):
            steps.run(kunit.configured("config", kdir, out, tools), log, cwd=kdir)
            make = kernel.make_command(kdir, out, tools)
            steps.run([*make, "prepare"], log, append=True)
            steps.run([*make, "rust-analyzer", *OBJECTS], log, append=True)
        builds = [described(kdir, folder) for folder in map(settings.out, BUILDS)
                  if folder.exists()]
        return (Overlay(kdir.resolve()), json.loads((out / "rust-project.json").read_text()),
                builds)


def main():
    """Write both files to the top of the repository."""
    overlay, project, builds = prepare()
    for name, content in (
            ("rust-project.json", rust_project(overlay, project, settings.out("rust-analyzer"))),
            ("compile_commands.json", compile_commands(overlay, builds))):
        (overlay.root / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(overlay.root / name)


if __name__ == "__main__":
    steps.main(main)
