# SPDX-License-Identifier: GPL-2.0
"""Check that each promise in SPECIFICATION.md is shown by tests that exist, ran and passed."""

import datetime
import json
import re
import xml.etree.ElementTree
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import settings
import steps

FILE = settings.ROOT / "SPECIFICATION.md"
GUESTS = ("boot-test", "only-debug", "debug-test", "module-test")
DOCTESTS = "rust_doctests_kernel"  # this suite is generated
BY_HAND = re.compile(r"by hand: (?:make ([a-z-]+)|.+), (\d{4}-\d\d-\d\d)")


@dataclass(frozen=True)
class Promise:
    """A line of the specification: its tests in each run, and those with LONG=1 or by hand."""
    number: str
    always: tuple
    rarely: tuple


def read(text):
    """List the promises in a specification; refuse a malformed one."""
    found = []
    for line in text.splitlines():
        if not re.match(r"\| [A-Z]+\d+ ", line):
            continue
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 5 or not cells[1]:
            raise steps.Trouble(f"{FILE.name}: not five cells, or no promise: {line}")
        tests = [tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells[3:]]
        if not any(tests):
            raise steps.Trouble(f"{FILE.name}: {cells[0]} names no test")
        found.append(Promise(cells[0], *tests))
    last = defaultdict(int)
    for promise in found:
        area, number = re.fullmatch(r"([A-Z]+)(\d+)", promise.number).groups()
        last[area] += 1
        if int(number) != last[area]:
            raise steps.Trouble(f"{FILE.name}: {promise.number} stands where {area}{last[area]} "
                                "should be")
    return found


# What there is

def sources(*folders, suffix):
    """Return the texts of all files of a kind below folders."""
    return [path.read_text(encoding="utf-8") for folder in folders
            for path in sorted((settings.ROOT / folder).rglob(f"*{suffix}"))]


def is_by_hand(test):
    """Return whether a test is a command for a person, with a target of make and a date."""
    match = BY_HAND.fullmatch(test)
    if not match:
        return False
    datetime.date.fromisoformat(match[2])
    makefile = (settings.ROOT / "Makefile").read_text(encoding="utf-8")
    return not match[1] or re.search(rf"^{match[1]}:$", makefile, re.M) is not None


def exists(test):
    """Return whether the sources have a test."""
    kind, _, name = test.partition(":")
    if "::" in test:
        path, _, name = test.partition("::")
        path = settings.ROOT / path
        return path.is_file() and bool(re.search(rf"^def {re.escape(name.partition('[')[0])}\(",
                                                 path.read_text(encoding="utf-8"), re.M))
    if kind == "kunit":
        suite, _, case = name.partition(".")
        case = case.partition(".")[0]
        return suite == DOCTESTS or any(
            re.search(rf"\"{suite}\"|\({suite}\)", text)
            and (case == "*" or re.search(rf"\b{re.escape(case)}\b", text))
            for suffix in (".c", ".rs") for text in sources("drivers", "rust", suffix=suffix))
    return any(re.search(rf"\bfn {re.escape(name)}\(", text)
               for text in sources(f"tests/{kind}", suffix=".rs"))


# What ran

def path(part):
    """Return the path at which a part of the tests leaves its results."""
    if part == "kunit":
        return settings.out("kunit") / "report.json"
    if part in ("model", "concurrency"):
        return settings.LOGS / f"{part}.log"
    return settings.BUILD / f"{part}.xml"


def forget(parts):
    """Remove the results of parts that run anew."""
    for part in parts:
        path(part).unlink(missing_ok=True)


def of_pytest(text):
    """Return the outcomes in pytest's report."""
    found = []
    for case in xml.etree.ElementTree.fromstring(text).iter("testcase"):
        names = {child.tag for child in case}
        outcome = "failed" if names & {"failure", "error"} else \
            "skipped" if "skipped" in names else "passed"
        found.append((f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}",
                      outcome))
    return found


def of_kunit(text):
    """Return the outcomes in kunit.py's report."""
    words = {"PASS": "passed", "SKIP": "skipped"}

    def cases(group, names):
        for case in group["test_cases"]:
            yield ".".join([*names, case["name"]]), words.get(case["status"], "failed")
        for inner in group["sub_groups"]:
            yield from cases(inner, [*names, inner["name"]])
    return [(f"kunit:{name}", outcome) for name, outcome in cases(json.loads(text), [])]


def of_cargo(part, text):
    """Return the outcomes in the output of 'cargo test'."""
    words = {"ok": "passed", "ignored": "skipped"}
    return [(f"{part}:{name.rpartition('::')[2]}", words.get(word, "failed")) for name, word in
            re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (\w+)", text, re.M)]


def outcomes(part):
    """Return the outcomes of a part of the tests, or None if it has left no results."""
    report = path(part)
    if not report.is_file():
        return None
    text = report.read_text(encoding="utf-8", errors="replace")
    if report.suffix == ".json":
        return of_kunit(text)
    return of_cargo(part, text) if report.suffix == ".log" else of_pytest(text)


def parts(test):
    """Return the parts in which a test may run."""
    if "::" not in test:
        return (test.partition(":")[0],)
    folder = Path(test).parts[1]
    if folder != "boot":
        return (folder,)
    out = "only-debug" if settings.flag("LONG") else "debug-test"
    return tuple(name for name in GUESTS if name != out)


def is_meant(test, name):
    """Return whether a test's name means a test that ran: all parameters, if it names none."""
    pattern = ".*".join(map(re.escape, test.split("*")))
    more = r"(\[.*\])?" if "::" in test else r"(\..*)?"
    return re.fullmatch(pattern + more, name) is not None


class Results:
    """The results that the last run of each part has left."""

    def __init__(self):
        self.found = {}

    def of(self, part):
        """Return the outcomes of a part, read once."""
        if part not in self.found:
            self.found[part] = outcomes(part)
        return self.found[part]

    def wrong(self, test):
        """Return why a test proves nothing, or None; and the parts that have no results."""
        missing = tuple(part for part in parts(test) if self.of(part) is None)
        seen = {outcome for part in parts(test) for name, outcome in self.of(part) or ()
                if is_meant(test, name)}
        if "failed" in seen:
            return "failed", ()
        if "passed" in seen:
            return None, ()
        return ("was skipped", ()) if seen else ("did not run", missing)


def check(promises):
    """Print what is not shown; return how many promises are not."""
    results, bad, absent = Results(), set(), defaultdict(list)

    def complain(promise, test, why):
        bad.add(promise.number)
        print(f"{promise.number}: {test}: {why}")

    for promise in promises:
        for test in promise.always + promise.rarely:
            if is_by_hand(test) and test in promise.rarely:
                continue
            if not exists(test):
                complain(promise, test, "no such test")
            elif test in promise.always or settings.flag("LONG"):
                why, missing = results.wrong(test)
                if missing:
                    bad.add(promise.number)
                    absent[missing].append(promise.number)
                elif why:
                    complain(promise, test, why)
    for missing, numbers in absent.items():
        print(f"no results of {', '.join(missing)}, so not shown: "
              f"{', '.join(dict.fromkeys(numbers))}")
    return len(bad)


def run():
    """Check all promises; return how many checks passed and how many failed."""
    promises = read(FILE.read_text(encoding="utf-8"))
    bad = check(promises)
    print(f"promises: {len(promises) - bad} shown, {bad} not")
    return (0, 1) if bad or not promises else (1, 0)
