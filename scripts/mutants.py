# SPDX-License-Identifier: GPL-2.0
"""Measure how many faults the tests find that are put into the driver and the abstractions.

The model tests the files that it shares with the driver, natively; KUnit tests the others under
UML, and then loom those of the flush path. A test that fails or hangs has found the fault, the
mutant is "killed". Results are kept: one that was killed is not tested again, one that survived
only if tests have changed.
"""

import contextlib
import dataclasses
import fnmatch
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter

import coverage
import graft
import kernel_source
import kunit
import long_run
import mutate
import packages
import settings
import steps
import toolchain

DRIVER = "drivers/nvdimm/virtio_pmem_rust"
ENGINE = f"{DRIVER}/engine.rs"
MODEL = (ENGINE, f"{DRIVER}/gather.rs")
FAULTS = f"{DRIVER}/flush/faults.rs"  # not compiled here
# Which of the files of tests/concurrency/build.rs KUnit tests first.
CONCURRENT = (*(f"{DRIVER}/{name}.rs" for name in ("callers", "flush", "flush/port",
                                                   "flush/shared")),
              *(f"rust/kernel/{name}.rs" for name in ("types/chain", "sync/wait_list",
                                                      "block/bio/list")))
REASONS = settings.TESTS / "survivors"
FOLDER = settings.BUILD / "mutants"
WANTED = {True: 90, False: 80}  # percent killed: in the engine, and in the rest

# The model's tests: their profile, names and limit in seconds, after which they count as hanging;
# it is many times what they need. Most mutants are killed by the first ones, which are compiled
# quickly. A mutant may take all memory: that is limited, too.
STAGES = (("dev", ("cases", "calls", "policy"), 120), ("release", ("random",), 300),
          ("release", ("regret",), 600), ("release", ("exhaustive",), 1800))
LOOM_STAGES = (("release", ("scenarios",), 600),)
MEMORY = 4 << 30
CALLERS = 1  # of the exhaustive tests

# The suites that run first, by the start of the path; then all.
SUITES = (("drivers/", "virtio_pmem*"), ("rust/kernel/virtio", "virtio_*"),
          ("rust/kernel/", "rust_[!d]*"))
# Fewer random runs, with a fixed seed.
RANDOM = ("pmem_random_kunit.seed=1", "pmem_random_kunit.runs=300")
PASSED = re.compile(r"\s+ok \d+ ")
FAILED = re.compile(rf"^\s*not ok |{kunit.COMPLAINT.pattern}")
COMPILED, KILLED, SURVIVED = "not compiled", "killed", "survived"


def texts(*patterns):
    """Return the digest of the files of this repository that match."""
    return long_run.digest(*(path.read_text() for pattern in patterns
                             for path in sorted(settings.ROOT.glob(pattern))))


class Model:
    """Tests mutants on the host, in a copy of the files that the model needs."""

    crate, copied, checked, stages, skipped = "model", ("tests/model", DRIVER), MODEL, STAGES, ()
    tests = staticmethod(lambda: texts("tests/model/src/*.rs", "tests/model/tests/*.rs"))

    def __init__(self, results, _):
        self.root = FOLDER / self.crate
        for name in self.copied:
            shutil.rmtree(self.root / name, ignore_errors=True)
            # As new files: cargo may have compiled the last mutant of another run, after these.
            shutil.copytree(settings.ROOT / name, self.root / name, copy_function=shutil.copyfile)
        self.cargo = toolchain.cargo()
        tests = self.tests()
        key = long_run.digest("no fault", texts(*self.checked), tests)
        if kept(results, key, tests) != (SURVIVED, ""):
            with steps.step(f"tests without a fault ({self.crate})"):
                if self.outcome() != (SURVIVED, ""):
                    raise steps.Trouble(f"the tests fail\nlog: {steps.log_path('mutants')}")
            results.put(key, SURVIVED, "", tests)

    def run(self, action, profile, names, limit=None):
        """Run cargo; return whether it succeeds."""
        prefix = ["timeout", "-k", 5, limit, "prlimit", f"--as={MEMORY}"] if limit else []
        try:
            steps.run([*prefix, self.cargo, *action, "--locked", "--profile", profile,
                       *(word for name in names for word in ("--test", name)),
                       "--manifest-path", self.root / f"tests/{self.crate}/Cargo.toml",
                       "--target-dir", FOLDER / f"{self.crate}-target", "--",
                       *(f"--skip={name}" for name in self.skipped)], steps.log_path("mutants"),
                      env={"MOST": str(CALLERS), "CARGO_PROFILE_DEV_OPT_LEVEL": "0"})
        except steps.Trouble:
            return False
        return True

    def outcome(self):
        """Return what the tests make of the files as they are, and which of them have failed."""
        for number, (profile, names, limit) in enumerate(self.stages):
            if not self.run(["test", "--no-run"], profile, names):
                return (KILLED, names[0]) if number else (COMPILED, "")
            if not self.run(["test"], profile, names, limit):
                return KILLED, "/".join(names)
        return SURVIVED, ""

    def test(self, mutant):
        """Return the outcome for a mutant."""
        path, text = self.root / mutant.file, (settings.ROOT / mutant.file).read_text()
        path.write_text(mutant.apply(text))
        try:
            return self.outcome()
        finally:
            path.write_text(text)


class Concurrency(Model):
    """Tests on the host with loom what has survived KUnit."""

    crate, copied = "concurrency", ("tests/concurrency", DRIVER, "rust/kernel")
    checked, stages, skipped = CONCURRENT, LOOM_STAGES, ("mutants_are_found",)
    tests = staticmethod(lambda: texts("tests/concurrency/src/**/*.rs",
                                       "tests/concurrency/tests/*.rs"))

    def test(self, mutant):
        """Return the outcome; the stand-ins of the kernel may not fit to a mutant."""
        outcome, by = super().test(mutant)
        return (SURVIVED, "") if outcome == COMPILED else (outcome, by)


class Uml:
    """Tests mutants under UML: in the grafted tree, which is repaired after each."""

    tests = staticmethod(lambda: texts("drivers/*/tests/*", "rust/kernel/**/testing.rs"))

    def __init__(self, _, kdir):
        self.kdir = kdir
        self.tools = toolchain.ready(kdir) | {"ARCH": "um"}
        self.out = FOLDER / "uml"
        self.out.mkdir(parents=True, exist_ok=True)
        coverage.begin(self.out)
        self.log = steps.log_path("mutants")
        self.passed, self.gap = {}, 0
        with steps.step("build without a fault (UML)"):
            self.build()

    def build(self):
        """Build the kernel."""
        words = kunit.configured("build", self.kdir, self.out, self.tools)
        steps.run([*words, "--jobs", os.cpu_count()], self.log, cwd=self.kdir)

    def run(self, pattern, silence=600):
        """Run suites until a test fails; return how many pass, or -1.

        kunit.py would go on after the first failure, and wait long for a test that hangs.
        """
        words = [self.out / "linux", "mem=1G", "console=tty", "kunit_shutdown=halt",
                 "kunit.enable=1", f"kunit.filter_glob={pattern or '*'}", *kunit.ARGS, *RANDOM]
        passed, self.gap, last = 0, 0, time.monotonic()
        for line in lines_of(words, silence):
            if line is None or FAILED.search(line):
                return -1
            passed += bool(PASSED.match(line))
            now = time.monotonic()
            self.gap, last = max(self.gap, now - last), now
        return passed

    def expected(self, patterns):
        """Find out how many tests pass without a fault, and how long there is no output."""
        new = [pattern for pattern in patterns if pattern not in self.passed]
        if new:
            with steps.step("tests without a fault (UML)"):
                self.build()
                for pattern in new:
                    count = self.run(pattern)
                    if count <= 0:
                        raise steps.Trouble(f"KUnit fails without a fault: {self.out}/linux")
                    self.passed[pattern] = count, 60 + 10 * int(self.gap)

    def test(self, mutant):
        """Return the outcome for a mutant."""
        first = next(suites for start, suites in SUITES if mutant.file.startswith(start))
        self.expected((first, ""))
        path, text = self.kdir / mutant.file, (settings.ROOT / mutant.file).read_text()
        note(self.kdir, mutant.file)
        path.write_text(mutant.apply(text))
        try:
            try:
                self.build()
            except steps.Trouble:
                return COMPILED, ""
            for pattern in (first, ""):
                count, silence = self.passed[pattern]
                if self.run(pattern, silence) != count:
                    return KILLED, pattern or "all"
            return SURVIVED, ""
        finally:
            repair()


def lines_of(words, silence):
    """Yield a command's lines of output, and None if there is none for so many seconds."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True) as process:
        rest = ""
        try:
            while select.select([process.stdout], [], [], silence)[0]:
                new = os.read(process.stdout.fileno(), 1 << 16).decode(errors="replace")
                if not new:
                    return
                *lines, rest = (rest + new).split("\n")
                yield from lines
            yield None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def note(kdir, file):
    """Write down which file of the tree has a fault, for a run that is killed."""
    (FOLDER / "changed").write_text(json.dumps([str(kdir), file]))


def repair():
    """Restore the file that has a fault, if there is one."""
    path = FOLDER / "changed"
    if path.exists():
        kdir, file = json.loads(path.read_text())
        shutil.copyfile(settings.ROOT / file, f"{kdir}/{file}")
        path.unlink()


def kept(results, key, tests):
    """Return a mutant's outcome and the test that killed it, if they still hold."""
    outcome, by, then = results.get(key) or (None, "", "")
    return (outcome, by) if outcome != SURVIVED or then == tests else (None, "")


def reasons():
    """Return why mutants may survive, as {(file, mutant): reason}; a reason is for all above it."""
    found, places = {}, []
    for line in REASONS.read_text().splitlines():
        if line.startswith("    "):
            for place in places:
                found[place] = f"{found[place]} {line.strip()}".strip()
        elif line and not line.startswith("#"):
            if places and found[places[-1]]:
                places = []
            places.append(tuple(line.split(": ", 1)))
            found[places[-1]] = ""
    return found


@dataclasses.dataclass
class Job:
    """A mutant, and what is known of it."""
    mutant: mutate.Mutant
    key: str
    outcome: str = None
    by: str = ""

    @property
    def place(self):
        """The name in the file of reasons."""
        return self.mutant.file, self.mutant.name


def chosen(names):
    """Return the files that ONLY= gives, or all."""
    pattern = settings.get("ONLY") or "*"
    found = [name for name in names if fnmatch.fnmatch(name, pattern)]
    if not found:
        raise settings.BadSetting(f"ONLY={pattern}: no file of the driver or the abstractions")
    return found


def jobs(names):
    """List the mutants of files."""
    tool = mutate.cargo_mutants()
    for name in names:
        path = settings.ROOT / name
        for mutant in mutate.mutants(tool, settings.ROOT, name, coverage.tests_begin(path)):
            yield Job(mutant, long_run.digest(path.read_text(), mutant.name))


def runners_of(file):
    """Return what tests a file's mutants, until one of them has found it."""
    if file in MODEL:
        return (Model,)
    return (Uml, Concurrency) if file in CONCURRENT else (Uml,)


def work(todo, results, kdir):
    """Test mutants until MINUTES= are over."""
    end, runners = long_run.deadline(), {}
    for job in todo:
        kinds = runners_of(job.mutant.file)
        tests = long_run.digest(*(kind.tests() for kind in kinds))
        job.outcome, job.by = kept(results, job.key, tests)
        if job.outcome or time.monotonic() > end:
            continue
        for kind in kinds:
            if kind not in runners:
                runners[kind] = kind(results, kdir)
            job.outcome, job.by = runners[kind].test(job.mutant)
            if job.outcome != SURVIVED:
                break
        results.put(job.key, job.outcome, job.by, tests)
        steps.say(f"{job.outcome}{job.by and ' by ' + job.by}: {': '.join(job.place)}")


def percent(counts):
    """Return how many percent of the mutants are killed, or None if none was tested."""
    total = counts[KILLED] + counts[SURVIVED]
    return 100 * counts[KILLED] // total if total else None


def report(todo, known, there):
    """Print the scores and the survivors; return the number of complaints."""
    bad, parts = 0, {True: Counter(), False: Counter()}
    print(f"{'killed':>8} {'survived':>8} {'not compiled':>12} {'not tested':>10}")
    for name in sorted({job.mutant.file for job in todo}):
        counts = Counter(job.outcome for job in todo if job.mutant.file == name)
        parts[name == ENGINE] += counts
        score = percent(counts)
        print(f"{counts[KILLED]:8} {counts[SURVIVED]:8} {counts[COMPILED]:12} {counts[None]:10}  "
              f"{name}{'' if score is None else f' {score} %'}")
        for job in todo:
            if job.mutant.file == name and job.outcome == SURVIVED:
                reason = known.get(job.place)
                bad += not reason
                print(f"{'':8} survived: {job.mutant.name}: {reason or 'no reason is given'}")
    stale = {job.place for job in todo if job.outcome in (KILLED, COMPILED)}
    for place in sorted(known):
        if place in stale or place not in there:
            print(f"{REASONS.name}: {': '.join(place)} is killed, or does not exist: delete it")
            bad += 1
    for is_engine, counts in parts.items():
        score = percent(counts)
        if score is not None and score < WANTED[is_engine]:
            print(f"less than {WANTED[is_engine]} % of the {'engine' if is_engine else 'rest'}")
            bad += 1
    total = parts[True] + parts[False]
    print(f"mutants: {total[KILLED]} killed, {total[SURVIVED]} survived, {bad} complaints")
    return bad


def main():
    """Test mutants, and report."""
    settings.arch()
    kernel_source.given()  # refuse a bad one first
    FOLDER.mkdir(parents=True, exist_ok=True)
    with steps.alone():
        repair()
        kdir = kernel_source.tree()
        packages.need("build")
        names = [name for name in coverage.measured(graft.Tree(kdir)) if name != FAULTS]
        everything = list(jobs(names))
        files = chosen(names)
        todo = long_run.sample([job for job in everything if job.mutant.file in files])
        work(todo, long_run.Results(FOLDER / "results"), kdir)
    return 1 if report(todo, reasons(), {job.place for job in everything}) else 0


if __name__ == "__main__":
    steps.main(main)
