# SPDX-License-Identifier: GPL-2.0
"""Check the style: rustfmt, checkpatch, shellcheck, ruff, and clippy (not with QUICK=1)."""

import re
import tempfile
from pathlib import Path

import config
import graft
import kernel as kernels
import kernel_source
import packages
import python_env
import series
import settings
import steps
import toolchain

# Checks that do not fit: each new file has an owner in MAINTAINERS, but the entry comes with the
# driver; the mails have no sign-off before they are sent; the tree has no history of commits.
IGNORED = "FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID"
# The macros of trace events are indented by a custom of their own.
IGNORED_IN_TRACES = f"{IGNORED},OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT"


def ours(suffix, shebang=None):
    """List the repository's files of one kind, by suffix or by interpreter."""
    names = steps.output(["git", "-C", settings.ROOT, "ls-files", "-co", "--exclude-standard"])
    if names is None:
        raise steps.Trouble("make lint needs a git checkout")
    found = []
    for path in (settings.ROOT / name for name in names.splitlines()):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            first = file.readline()
        if path.suffix == suffix or shebang and re.match(rb"#!.*\b" + shebang, first):
            found.append(path)
    return found


def rustfmt(kdir, tools):
    """Check the format of the Rust files, new ones and patched ones."""
    tree = graft.Tree(kdir)
    files = [kdir / name for name in graft.touched(tree.patches) if name.endswith(".rs")]
    steps.run([tools["RUSTFMT"], "--check", "--color=never", "--edition", "2021",
               "--config-path", kdir / ".rustfmt.toml", *ours(".rs"), *files],
              steps.log_path("rustfmt"))


def clippy(kdir, tools):
    """Compile all Rust code with clippy, in an output directory of its own."""
    out, log = settings.out("clippy"), steps.log_path("clippy")
    out.mkdir(parents=True, exist_ok=True)
    make = kernels.make_command(kdir, out, tools)
    config.merge("clippy", out, make)
    steps.run([*make, "CLIPPY=1", "rust/kernel.o", "drivers/nvdimm/virtio_pmem_rust/",
               "samples/rust/"], log)
    if re.search(r"^warning\b", log.read_text(errors="replace"), re.M):
        raise steps.Trouble(f"clippy warns\n{steps.tail(log)}")


def clippy_programs(tools):
    """Check the programs of the tests with clippy, by the compiler that builds the kernel."""
    log = steps.log_path("clippy-programs")
    for number, name in enumerate(("model", "device", "concurrency")):
        # As cargo-clippy does, which need not be beside the compiler.
        steps.run([toolchain.cargo(), "check", "--locked", "--all-targets", "--manifest-path",
                   settings.TESTS / name / "Cargo.toml",
                   "--target-dir", settings.out("clippy-programs")],
                  log, append=number > 0,
                  env={"RUSTC": tools["RUSTC"], "RUSTC_WORKSPACE_WRAPPER": tools["CLIPPY_DRIVER"],
                       "RUSTFLAGS": "-Dwarnings"})


def checkpatch(kdir):
    """Check each mail of the series."""
    script = [kdir / "scripts/checkpatch.pl", "--strict", "--no-signoff", "--no-summary",
              "--show-types", f"--root={kdir}", "--max-line-length=100"]
    log = steps.log_path("checkpatch")
    with tempfile.TemporaryDirectory() as folder:
        mails = series.make_mails(graft.Tree(kdir), Path(folder) / "mails")
        traces = [mail for mail in mails if "-tracing-" in mail.name]
        # Outside a git checkout it does not run spdxcheck.py, which has needs of its own.
        steps.run([*script, "--ignore", IGNORED_IN_TRACES, *traces], log, cwd=folder)
        steps.run([*script, "--ignore", IGNORED, *sorted({*mails} - {*traces})], log, append=True,
                  cwd=folder)


def shellcheck():
    """Check the shell scripts."""
    files = ours(".sh", rb"(ba|da)?sh\b")
    steps.run(["shellcheck", *files], steps.log_path("shellcheck"))


def python():
    """Check the Python files."""
    steps.run([python_env.python(), "-m", "ruff", "check", *ours(".py", rb"python")],
              steps.log_path("ruff"), cwd=settings.ROOT)


def run():
    """Run all; return how many passed and how many failed."""
    kernel_source.given()  # fail early
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build", "lint")
        tools = toolchain.ready(kdir)
        checks = {
            "rustfmt": lambda: rustfmt(kdir, tools),
            "checkpatch": lambda: checkpatch(kdir),
            "shellcheck": shellcheck,
            "ruff": python,
        }
        if not settings.flag("QUICK"):
            checks["clippy"] = lambda: clippy(kdir, tools)
            checks["clippy of programs"] = lambda: clippy_programs(tools)
        failed = 0
        for name, check in checks.items():
            try:
                with steps.step(name):
                    check()
            except steps.Trouble as error:
                steps.say(f"error: {name}: {error}")
                failed += 1
    return len(checks) - failed, failed


def main():
    """Report by exit status."""
    passed, failed = run()
    print(f"lint: {passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    steps.main(main)
