# SPDX-License-Identifier: GPL-2.0
"""Write the series as mails to build/series/; with CHECK=1 build each of its commits.

A file in patches/ is one commit: its message, the changes of the kernel's own files, and on lines
"Adds: PATH" the new files that the commit brings.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import bench_report
import config
import graft
import kernel
import kernel_source
import kunit
import packages
import settings
import steps
import toolchain

OUT = settings.BUILD / "series"
FOLDER = settings.BUILD / "series-check"
COVER = settings.ROOT / "patches/cover-letter"

# The options that the KUnit suites on x86 need beside those of the guests' kernel.
SUITES = """
CONFIG_KUNIT=y
CONFIG_RUST_KERNEL_DOCTESTS=y
CONFIG_VIRTIO_FAKE_KUNIT_TEST=y
CONFIG_VIRTIO_RUST_KUNIT_TEST=y
CONFIG_NVDIMM_PROVIDER_KUNIT_TEST=m
"""

# The objects to build for a commit, by the paths that it touches.
OBJECTS = {
    "rust/": ["rust/kernel.o", "rust/doctests_kernel_generated.o"],
    "drivers/dax/": ["drivers/dax/"],
    "drivers/md/": ["drivers/md/"],
    "drivers/nvdimm/": ["drivers/nvdimm/"],
    "drivers/virtio/": ["drivers/virtio/"],
    "include/linux/libnvdimm.h": ["drivers/nvdimm/"],
    "include/trace/": ["rust/kernel.o"],
    "mm/": ["mm/"],
    "samples/": ["samples/rust/"],
}


@dataclasses.dataclass(frozen=True)
class Commit:
    """One patch of the series."""
    name: str
    text: str

    def header(self, field):
        """Return a header of the patch."""
        found = re.match(rf"(?:.+\n)*?{field}: (.*)\n", self.text)
        if not found:
            raise steps.Trouble(f"patches/{self.name}: no {field}: line at its head")
        return found[1]

    @property
    def author(self):
        """The author."""
        return self.header("From")

    @property
    def message(self):
        """Subject and body, as git commit takes them."""
        subject = re.sub(r"^\[PATCH\] ", "", self.header("Subject"))
        body = self.text.partition("\n\n")[2].partition("\n---\n")[0]
        return f"{subject}\n\n{body}\n"

    @property
    def adds(self):
        """The new files, or folders of them."""
        head = self.text.partition("\n---\n")[2].partition("\n--- ")[0]
        return re.findall(r"^Adds: (\S+)$", head, re.M)


def commits():
    """List the commits, in order."""
    return [Commit(name, text) for name, text in graft.series()]


def shares(wanted, names):
    """Return which new files each commit brings; each file belongs to exactly one."""
    found = {}
    owner = {}
    for commit in wanted:
        mine = []
        for add in commit.adds:
            matching = [name for name in names
                        if name == add or add.endswith("/") and name.startswith(add)]
            if not matching:
                raise steps.Trouble(f"patches/{commit.name} adds {add}, which does not exist")
            mine += matching
        for name in mine:
            if name in owner:
                raise steps.Trouble(f"{name} is added by patches/{owner[name]} and by "
                                    f"patches/{commit.name}")
            owner[name] = commit.name
        found[commit.name] = mine
    if left := sorted(set(names) - set(owner)):
        raise steps.Trouble("no patch adds these new files: " + ", ".join(left))
    return found


def git(folder, *words, **options):
    """Run git in a folder, as the project."""
    # Neither a hook's repository nor the user's settings count.
    environment = {name: value for name, value in steps.environment().items()
                   if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    author = re.fullmatch(r"(.*) <(.*)>", commits()[0].author)
    done = subprocess.run(
        ["git", "-c", f"user.name={author[1]}", "-c", f"user.email={author[2]}",
         "-c", "gc.auto=0", "-C", folder, *words],
        capture_output=True, text=True, check=False, env=environment, **options,
    )
    if done.returncode:
        raise steps.Trouble(f"git {words[0]}: {done.stderr or done.stdout}")
    return done.stdout


def make_mails(tree, out):
    """Write the mails: commit after commit in a repository of the touched files alone."""
    wanted = commits()
    brings = shares(wanted, graft.new_files())
    if there := [name for name, text in graft.series() if [name, text] not in tree.patches]:
        raise steps.Trouble(f"{tree.path} has these patches already: {', '.join(there)}; remove "
                            "them from patches/")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        git(folder, "init", "-q")
        contents, _ = tree.repatched([])
        for name, data in contents.items():
            graft.write(folder / name, data)
        git(folder, "add", "-A", "-f")
        git(folder, "commit", "-q", "-m", "base")
        for commit in wanted:
            done, said = graft.run_patch(folder, commit.text)
            if not done:
                raise steps.Trouble(f"patches/{commit.name} does not apply:\n{said}")
            for name in brings[commit.name]:
                source = settings.ROOT / name
                graft.write(folder / name, source.read_bytes(), source.stat().st_mode & 0o777)
            git(folder, "add", "-A", "-f")
            git(folder, "commit", "-q", f"--author={commit.author}", "-F", "-",
                input=commit.message)
        shutil.rmtree(out, ignore_errors=True)
        git(folder, "format-patch", "-q", "--cover-letter", "--no-signature", "-o", out,
            f"-{len(wanted)}")
    return sorted(path for path in out.glob("*.patch") if not path.name.startswith("0000-"))


def figures():
    """Return the rates of the last benchmark as text, here or as it is in git."""
    path = settings.BUILD / "bench/bench.json"
    if not path.exists():
        path = settings.ROOT / "bench/bench.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    results = bench_report.Results()
    for one in found["rates"]:
        point = bench_report.Point(one["host_delay_ms"], one["mode"], one["jobs"])
        for rate in one["rounds"]:
            results.add(point, one["device"], rate)
    about = found["about"]
    return (f"Benchmark of 4 KiB writes, {about['time']}, medians;\n{about['qemu']},\n"
            f"{about['accelerator']}, guest with {about['guest']}:\n\n"
            f"{bench_report.table(results)}")


def recipients(kdir, mails):
    """Return the recipients that get_maintainer.pl names for the mails."""
    text = steps.output(["perl", "scripts/get_maintainer.pl", "--no-git", "--no-git-fallback",
                         "--no-rolestats", *mails], cwd=kdir)
    if text is None:
        raise steps.Trouble(f"scripts/get_maintainer.pl fails in {kdir}")
    return text


def write_cover(kdir, out, mails):
    """Fill in the cover letter that git has prepared."""
    path = next(out.glob("0000-*.patch"))
    subject, _, body = COVER.read_text(encoding="utf-8").partition("\n\n")
    text = path.read_text(encoding="utf-8")
    text = text.replace("*** SUBJECT HERE ***", subject.removeprefix("Subject: "))
    text = text.replace("*** BLURB HERE ***", body.replace("@FIGURES@", figures()).rstrip())
    text += "\nRecipients:\n" + "".join(f"  {line}\n"
                                        for line in recipients(kdir, mails).splitlines())
    path.write_text(text, encoding="utf-8")


# CHECK=1

def pristine(kdir, folder):
    """Copy the kernel source without the overlay into a new git repository."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kdir, folder, symlinks=True)
    graft.Tree(folder).remove()
    git(folder, "init", "-q")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", "pristine")


def touched(mail):
    """List the paths that a mail changes."""
    return graft.touched([[mail.name, mail.read_text(encoding="utf-8")]])


def objects(names):
    """List the targets to build for changes of these paths."""
    found = [target for prefix, targets in OBJECTS.items() for target in targets
             if any(name.startswith(prefix) for name in names)]
    return list(dict.fromkeys(found))


def build_each(kdir, mails):
    """Apply each mail to a pristine tree and build the objects that it touches; then build all."""
    source, out = FOLDER / "linux", FOLDER / "out"
    log = steps.log_path("series")
    with steps.step("pristine tree"):
        pristine(kdir, source)
    tools = toolchain.ready(source)
    out.mkdir(parents=True, exist_ok=True)
    make = kernel.make_command(source, out, tools)
    steps.run([*make, "tinyconfig"], steps.log_path("series-config"))
    log.write_text("")
    for mail in mails:
        with steps.step(mail.name):
            git(source, "am", "-q", str(mail))
            targets = objects(touched(mail))
            if targets:
                # A new option takes the value that the fragments give it.
                with open(out / ".config", "a", encoding="utf-8") as file:
                    file.write(config.fragments("release") + SUITES)
                steps.run([*make, "olddefconfig"], steps.log_path("series-config"))
                steps.run([*make, "prepare"], log, append=True)
                steps.run([*make, *targets], log, append=True)
    with steps.step("the whole kernel"):
        steps.run([*make, "vmlinux", "modules"], log, append=True)
    if re.search(r"\bwarning:", log.read_text(errors="replace")):
        raise steps.Trouble(f"the build warns\n{steps.tail(log)}")
    # Grafting finds all there already.
    os.environ |= {"KDIR": str(source), "O": str(FOLDER)}
    passed, failed = kunit.run()
    if failed or not passed:
        raise steps.Trouble(f"kunit: {passed} passed, {failed} failed")


def main():
    """Write the series, and check it with CHECK=1."""
    check = settings.flag("CHECK")
    if settings.get("KDIR"):
        raise settings.BadSetting("the series is made from the project's own kernel source: "
                                  "leave KDIR out")
    with steps.alone():
        kdir = kernel_source.tree()
        packages.need("build", "test")
        with steps.step("series"):
            mails = make_mails(graft.Tree(kdir), OUT)
            write_cover(kdir, OUT, mails)
    print(OUT, flush=True)
    if check:
        build_each(kdir, mails)
        shutil.rmtree(FOLDER)


if __name__ == "__main__":
    steps.main(main)
