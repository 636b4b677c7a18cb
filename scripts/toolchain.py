# SPDX-License-Identifier: GPL-2.0
"""Find a toolchain that the kernel's `make rustavailable` accepts, or install one."""

import itertools
import os
import re
import shutil
import tempfile
from pathlib import Path

import packages
import settings
import steps

# The bindgen that is installed with cargo where no package has one that is new enough.
BINDGEN_CLI = "0.73.2"

# The oldest Rust for the host's tests; min-tool-version.sh has the kernel's.
OLDEST_RUST = (1, 85)

# Rust is in packages of these names; the first that is new enough is taken.
RUST_PACKAGES = (
    ("rustc", ("rustc", "rust-src", "rustfmt", "rust-clippy", "cargo")),
    ("rustc-web", ("rustc-web", "rust-web-src", "rustfmt-web", "rust-web-clippy", "cargo-web")),
    *((f"rustc-1.{n}", (f"rustc-1.{n}", f"rust-1.{n}-src", f"rustfmt-1.{n}",
                        f"rust-1.{n}-clippy", f"cargo-1.{n}")) for n in (91, 89, 88, 85)),
)


def numbers(text):
    """Return the first version number in a text as a tuple."""
    match = re.search(r"\d+(\.\d+)+", text or "")
    return tuple(map(int, match[0].split("."))) if match else ()


def minimum(kdir, tool):
    """Return the oldest version of a tool with which the kernel builds."""
    return numbers(steps.output(["sh", kdir / "scripts/min-tool-version.sh", tool]))


def compilers():
    """List the values of LLVM that may work, best first."""
    if settings.get("LLVM"):
        return [settings.get("LLVM")]
    parts = ("clang", "ld.lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-strip")
    found = ["1"] if all(map(shutil.which, parts)) else []
    folders = sorted(Path("/usr/lib").glob("llvm-*/bin"), reverse=True,
                     key=lambda path: numbers(path.parts[3].replace("-", " 0.")))
    return found + [f"{path}/" for path in folders if all((path / part).exists() for part in parts)]


def llvm_tool(llvm, tool):
    """Return the tool, such as clang, that the kernel's make calls for a value of LLVM."""
    if llvm.endswith("/"):
        return f"{llvm}{tool}"
    return f"{tool}{llvm}" if llvm.startswith("-") else tool


def beside(rustc, tool):
    """Return the tool of the same toolchain: its name with rustc's suffix, in its directory."""
    path = Path(rustc)
    name = path.name.replace("rustc", tool, 1)
    return str(path.with_name(name)) if path.parent != Path(".") else name


def sources(rustc):
    """Return the path of the core library's sources, "" if the compiler finds them by itself."""
    sysroot = steps.output([rustc, "--print", "sysroot"])
    if sysroot and Path(sysroot, "lib/rustlib/src/rust/library/core/src/lib.rs").exists():
        return ""
    version = ".".join(map(str, numbers(steps.output([rustc, "--version"]))))
    path = Path(f"/usr/src/rustc-{version}/library")
    return str(path) if (path / "core/src/lib.rs").exists() else None


def rusts():
    """List the Rust toolchains that may work, each as variables of make."""
    if settings.get("RUSTC"):
        names = [settings.get("RUSTC")]
    else:
        packaged = sorted(Path("/usr/bin").glob("rustc-1.*"), key=lambda p: numbers(p.name),
                          reverse=True)
        names = ["rustc", "/usr/bin/rustc", *map(str, packaged)]
    found = []
    for rustc in names:
        library = settings.get("RUST_LIB_SRC") or sources(rustc)
        if not shutil.which(rustc) or library is None:
            continue
        # HOSTRUSTC compiles the build's own tools; its default is the rustc on the path.
        tools = {"RUSTC": rustc, "HOSTRUSTC": rustc}
        for name, tool in (("RUSTDOC", "rustdoc"), ("RUSTFMT", "rustfmt"),
                           ("CLIPPY_DRIVER", "clippy-driver")):
            tools[name] = settings.get(name) or beside(rustc, tool)
        if library:
            tools["RUST_LIB_SRC"] = library
        found.append(tools)
    return found


def bindgens():
    """List the bindgens that may work."""
    if settings.get("BINDGEN"):
        return [settings.get("BINDGEN")]
    places = ("bindgen", Path.home() / ".cargo/bin/bindgen", settings.cache() / "bin/bindgen",
              *sorted(Path("/usr/bin").glob("bindgen-0.*"), reverse=True))
    return [str(place) for place in places if shutil.which(place)]


def accepted(kdir, tools):
    """Return why the kernel cannot build Rust with these tools, or ""."""
    log = steps.log_path("rustavailable")
    with tempfile.TemporaryDirectory() as out:
        try:
            steps.run(["make", "-C", kdir, f"O={out}", *variables(tools), "rustavailable"], log)
        except steps.Trouble:
            lines = [line.strip("* ") for line in log.read_text(errors="replace").splitlines()]
            reasons = [line for line in lines if line and not line.startswith(("make", "$"))]
            return " ".join(reasons[:6]) or "make rustavailable failed"
    return ""


def variables(tools):
    """Return make's command line arguments for a toolchain."""
    return [f"{name}={value}" for name, value in sorted(tools.items())]


def build_variables(kdir, out, tools):
    """Return make's command line arguments for a build of a tree in a directory.

    ccache calls the compiler with relative paths, so that it can share objects among checkouts.
    The map keeps __FILE__ a path within the tree.
    """
    flags = f"-fmacro-prefix-map={os.path.relpath(kdir, out)}/= {os.environ.get('KCFLAGS', '')}"
    return [*variables(tools), f"KCFLAGS={flags.rstrip()}"]


def versions(kdir, tools):
    """Return the versions of all that a build's outputs depend on."""
    found = []
    for command in (
            [llvm_tool(tools["LLVM"], "clang"), "--version"],
            [llvm_tool(tools["LLVM"], "ld.lld"), "--version"],
            [tools["RUSTC"], "-vV"],
            [tools["BINDGEN"], "--version"],
            # The kernel's header has bindgen print the version of its libclang, as a warning.
            ["sh", "-c", 'exec "$1" rust_is_available_bindgen_libclang.h 2>&1 >/dev/null', "sh",
             tools["BINDGEN"]],
            ["ldd", "--version"],  # the C library, which UML and the build's own tools load
    ):
        version = steps.output(command, cwd=kdir / "scripts")
        if not version:
            raise steps.Trouble(f"{' '.join(command)} gives no version: install it anew")
        found.append(version)
    return found


def find(kdir):
    """Return the first toolchain that the kernel accepts, or None and the reasons."""
    reasons = []
    llvms = [llvm for llvm in compilers() if numbers(
        steps.output([llvm_tool(llvm, "clang"), "--version"])) >= minimum(kdir, "llvm")]
    if not llvms:
        reasons.append("no clang with lld that is new enough")
    rust = [tools for tools in rusts()
            if numbers(steps.output([tools["RUSTC"], "--version"])) >= minimum(kdir, "rustc")]
    if not rust:
        reasons.append("no rustc with its library's sources that is new enough")
    if not bindgens():
        reasons.append("no bindgen")
    for llvm, tools, bindgen in itertools.product(llvms, rust, bindgens()):
        # Not for HOSTCC: rustc takes that for its linker, and cannot call two words.
        tools = {"ARCH": settings.arch(), "LLVM": llvm, "CC": f"ccache {llvm_tool(llvm, 'clang')}",
                 "BINDGEN": bindgen, **tools}
        why = accepted(kdir, tools)
        if not why:
            return tools, []
        reasons.append(why)
    return None, reasons


def wanted(kdir):
    """List the packages of a toolchain that this system offers, and whether bindgen is one."""
    names = []
    for package, group in RUST_PACKAGES:
        if numbers(packages.candidate(package)) >= minimum(kdir, "rustc"):
            names += [name for name in group if packages.candidate(name)]
            break
    oldest = minimum(kdir, "llvm")
    for suffix in ("", *(f"-{n}" for n in range(21, 14, -1))):
        version = numbers((packages.candidate(f"clang{suffix}") or "").split(":")[-1])
        if version >= oldest and packages.candidate(f"lld{suffix}"):
            names += [f"clang{suffix}", f"lld{suffix}", f"llvm{suffix}", f"libclang{suffix}-dev"]
            break
    has_bindgen = numbers(packages.candidate("bindgen")) >= minimum(kdir, "bindgen")
    return names + (["bindgen"] if has_bindgen else []), has_bindgen


def cargos():
    """List the cargos that are new enough, best first."""
    packaged = sorted(Path("/usr/bin").glob("cargo-1.*"), key=lambda p: numbers(p.name),
                      reverse=True)
    return [tool for tool in ("cargo", "/usr/bin/cargo", *map(str, packaged))
            if numbers(steps.output([tool, "--version"])) >= OLDEST_RUST]


def cargo():
    """Return cargo; install it if it is missing."""
    found = cargos()
    if not found:
        packages.refresh()
        names = [group[-1] for package, group in RUST_PACKAGES
                 if numbers(packages.candidate(package)) >= OLDEST_RUST]
        packages.install(names[:1] or ["cargo"])
        found = cargos()
    if not found:
        raise steps.Trouble(f"no cargo of Rust {'.'.join(map(str, OLDEST_RUST))} or newer: "
                            "install one and have it on the path")
    return found[0]


def cargo_install(package, version):
    """Install a program with cargo into the cache; the user's own tools stay as they are."""
    with steps.step(f"install {package} {version}"):
        steps.run(
            [cargo(), "install", "--locked", package, "--version", version,
             "--root", settings.cache(), "--target-dir", settings.BUILD / "cargo-install"],
            steps.log_path(package),
        )


def install(kdir, reasons):
    """Install the distribution's packages, and bindgen with cargo where it has none."""
    why = "; ".join(dict.fromkeys(reasons))
    if any(settings.get(name) for name in settings.TOOLS):
        raise steps.Trouble(f"the kernel cannot be built with the tools that were given: {why}")
    packages.refresh()
    names, has_bindgen = wanted(kdir)
    bindgen = "" if has_bindgen else f"; cargo install --locked bindgen-cli@{BINDGEN_CLI}"
    steps.say(f"no toolchain that builds Rust in the kernel: {why}")
    if not names or settings.flag("NO_INSTALL"):
        what = " ".join(names) or "clang lld llvm libclang-dev, rustc >= 1.85 with rust-src"
        raise steps.Trouble(f"install: {what}{bindgen}")
    packages.install([name for name in names if not steps.output(["dpkg", "-s", name])])
    if not has_bindgen:
        cargo_install("bindgen-cli", BINDGEN_CLI)


def ready(kdir):
    """Return a toolchain's variables of make; install one if there is none."""
    packages.need("build")
    tools, reasons = find(kdir)
    if tools is None:
        install(kdir, reasons)
        tools, reasons = find(kdir)
    if tools is None:
        raise steps.Trouble("still no toolchain: " + "; ".join(dict.fromkeys(reasons)))
    return tools


if __name__ == "__main__":
    def main():
        """Print the toolchain for a tree."""
        import sys  # pylint: disable=import-outside-toplevel
        print("\n".join(variables(ready(Path(sys.argv[1]).resolve()))))
    steps.main(main)
