# SPDX-License-Identifier: GPL-2.0
"""Check the style of all that is ours: rustfmt, clippy, checkpatch, shellcheck, ruff."""

import re
import subprocess
import tempfile
from pathlib import Path

import graft
import kernel as kernels
import kernel_source
import packages
import python_env
import settings
import steps
import toolchain

# Said of every difference that has new files, and no message; and of the root Kconfig, which has to
# name another one.
IGNORED = ("FILE_PATH_CHANGES,COMMIT_MESSAGE,EMAIL_SUBJECT,DIFF_IN_COMMIT_MSG,"
           "BAD_COMMIT_SEPARATOR,EMBEDDED_FILENAME")


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


def grafted(tree):
    """List what the overlay has put into a tree."""
    return sorted({*tree.copied, *tree.appended})


def rustfmt(kdir, tools):
    """Check the format of the Rust files, as the kernel's own target does."""
    files = [kdir / name for name in grafted(graft.Tree(kdir)) if name.endswith(".rs")]
    files += [path for path in ours(".rs") if settings.TESTS in path.parents
              and settings.TESTS / "kunit" not in path.parents]
    if files:
        steps.run([tools["RUSTFMT"], "--check", "--color=never", "--edition", "2021",
                   "--config-path", kdir / ".rustfmt.toml", *files], steps.log_path("rustfmt"))


def clippy(kdir, tools):
    """Compile all Rust code with clippy, in an output directory of its own."""
    out, log = settings.out("clippy"), steps.log_path("clippy")
    out.mkdir(parents=True, exist_ok=True)
    make = kernels.make_command(kdir, out, tools)
    kernels.config.merge("clippy", out, make)
    targets = ["rust/kernel.o", "drivers/nvdimm/virtio_pmem_rust/"]
    if (settings.ROOT / "samples/rust").exists():
        targets.append("samples/rust/")
    steps.run([*make, "CLIPPY=1", *targets], log)
    if re.search(r"^warning\b", log.read_text(errors="replace"), re.M):
        raise steps.Trouble(f"clippy warns\n{steps.tail(log)}")


def difference(kdir, names):
    """Return what the graft did to these files of a tree, as a patch."""
    tree = graft.Tree(kdir)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "a", Path(folder) / "b"
        for name in names:
            text = (kdir / name).read_bytes()
            graft.write(after / name, text)
            if name in tree.appended:
                old = graft.cut(name, text.decode(), [tree.appended[name]])
                graft.write(before / name, old.encode())
        before.mkdir(exist_ok=True)
        done = subprocess.run(["diff", "-urN", "a", "b"], cwd=folder, text=True,
                              capture_output=True, check=False)
    # diff's own lines would be taken for the message.
    return re.sub(r"^diff -urN .*\n", "", done.stdout, flags=re.M)


def checkpatch(kdir):
    """Check what the graft adds, and each patch."""
    script = [kdir / "scripts/checkpatch.pl", "--strict", "--no-signoff", "--no-summary",
              "--show-types", f"--root={kdir}", "--max-line-length=100"]
    log = steps.log_path("checkpatch")
    log.write_text("")
    traces = "include/trace/"
    names = grafted(graft.Tree(kdir))
    groups = {
        IGNORED: [name for name in names if not name.startswith(traces)],
        # The macros of trace events are indented by a custom of their own.
        f"{IGNORED},OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT":
            [name for name in names if name.startswith(traces)],
    }
    with tempfile.TemporaryDirectory() as folder:
        patch = Path(folder) / "graft.patch"
        for ignored, group in groups.items():
            if group:
                patch.write_text(difference(kdir, group))
                # Outside a git checkout it does not call spdxcheck.py, which has needs of its own,
                # nor take a patch that git knows for a file whose style is to be checked.
                steps.run([*script, "--ignore", ignored, patch], log, append=True, cwd=folder)
        # The source that is fetched has no history, in which it would look commits up.
        for path in sorted((settings.ROOT / "patches").glob("*.patch")):
            steps.run([*script, "--ignore", "UNKNOWN_COMMIT_ID", path], log, append=True,
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
    kernel_source.given()  # a bad one is not worth waiting for
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build", "lint")
        tools = toolchain.ready(kdir)
        checks = {
            "rustfmt": lambda: rustfmt(kdir, tools),
            "checkpatch": lambda: checkpatch(kdir),
            "shellcheck": shellcheck,
            "ruff": python,
            "clippy": lambda: clippy(kdir, tools),
        }
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
