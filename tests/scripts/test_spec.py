# SPDX-License-Identifier: GPL-2.0
"""A promise is shown by tests that exist, ran and passed; anything else is named."""

import json

import pytest

import run_tests
import settings
import spec
import steps

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.boot.test_x" name="test_good[rust]" />
<testcase classname="tests.boot.test_x" name="test_mixed[1]" />
<testcase classname="tests.boot.test_x" name="test_mixed[2]"><failure /></testcase>
<testcase classname="tests.boot.test_x" name="test_broken"><error /></testcase>
<testcase classname="tests.boot.test_x" name="test_out"><skipped /></testcase>
<testcase name="a worker that crashed"><error /></testcase>
</testsuite></testsuites>"""
KUNIT = {"test_cases": [], "sub_groups": [{
    "name": "suite", "test_cases": [{"name": "good", "status": "PASS"},
                                    {"name": "bad", "status": "FAIL"}],
    "sub_groups": [{"name": "many", "test_cases": [{"name": "1", "status": "PASS"},
                                                   {"name": "2", "status": "PASS"}],
                    "sub_groups": []}]}]}
CARGO = "test fast ... ok\ntest slow - should panic ... ok\ntest bad ... FAILED\n" \
        "test inner::deep ... ok\ntest out ... ignored\n"
SOURCES = {
    "tests/boot/test_x.py": "".join(f"def test_{name}():\n    pass\n" for name in
                                    ("good", "mixed", "broken", "out", "new")),
    "tests/model/cases.rs": "fn fast() {}\nfn slow() {}\nfn bad() {}\nfn deep() {}\nfn out() {}\n",
    "drivers/x_kunit.c": '.name = "suite"\nKUNIT_CASE(good)\nKUNIT_CASE(bad)\nKUNIT_CASE(many)\n',
    "Makefile": "bench:\n",
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Make a project with tests of all kinds, and the results of a run without only-debug."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(settings, "BUILD", tmp_path / "build")
    monkeypatch.setattr(settings, "LOGS", tmp_path / "build/logs")
    monkeypatch.setattr(spec, "FILE", tmp_path / "SPECIFICATION.md")
    results = {"build/boot-test.xml": JUNIT, "build/module-test.xml": "<testsuites />",
               "build/kunit/report.json": json.dumps(KUNIT), "build/logs/model.log": CARGO}
    for name, text in {**SOURCES, **results}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "rust").mkdir()


def check(capsys, always, rarely=""):
    """Return what is printed about one promise, without the count."""
    rows = [f"| D1 | a promise | 1 | {always} | {rarely} |"]
    spec.FILE.write_text("\n".join(rows))
    passed, failed = spec.run()
    text = capsys.readouterr().out
    assert (passed, failed) == ((1, 0) if "1 shown, 0 not" in text else (0, 1))
    return text.rpartition("promises:")[0].strip()


@pytest.mark.parametrize(("test", "why"), [
    ("tests/boot/test_x.py::test_good", ""),
    ("tests/boot/test_x.py::test_good[rust]", ""),
    ("tests/boot/test_x.py::test_good[*]", ""),
    ("tests/boot/test_x.py::test_mixed[1]", ""),
    ("tests/boot/test_x.py::test_mixed", "failed"),
    ("tests/boot/test_x.py::test_broken", "failed"),
    ("tests/boot/test_x.py::test_out", "was skipped"),
    ("kunit:suite.good", ""),
    ("kunit:suite.many", ""),
    ("kunit:suite.many.1", ""),
    ("kunit:suite.bad", "failed"),
    ("kunit:suite.*", "failed"),
    ("model:fast", ""),
    ("model:slow", ""),
    ("model:deep", ""),
    ("model:bad", "failed"),
    ("model:out", "was skipped"),
])
def test_each_outcome(capsys, monkeypatch, test, why):
    assert check(capsys, f"`{test}`") == (why and f"D1: {test}: {why}")
    assert check(capsys, "", f"`{test}`") == ""
    monkeypatch.setenv("LONG", "1")
    assert check(capsys, "", f"`{test}`") == (why and f"D1: {test}: {why}")


@pytest.mark.parametrize("column", ["always", "rarely"])
@pytest.mark.parametrize("test", [
    "tests/boot/test_x.py::test_none", "tests/boot/test_none.py::test_good", "kunit:suite.none",
    "kunit:none.good", "model:none", "none:fast", "by hand: make none, 2026-11-22",
    "by hand: make bench",
])
def test_what_does_not_exist_is_named(capsys, column, test):
    assert check(capsys, **{"always": "", column: f"`{test}`"}) == f"D1: {test}: no such test"


def test_by_hand_is_rare(capsys):
    test = "by hand: make bench, 2026-11-22"
    assert check(capsys, "", f"`{test}`") == ""
    assert "no such test" in check(capsys, f"`{test}`")


def test_a_part_without_results_is_named(capsys):
    new = "tests/boot/test_x.py::test_new"
    assert check(capsys, f"`{new}`") == "no results of only-debug, so not shown: D1"
    (settings.BUILD / "only-debug.xml").write_text("<testsuites />")
    assert check(capsys, f"`{new}`") == f"D1: {new}: did not run"
    spec.forget(["kunit", "model"])
    assert check(capsys, "`kunit:suite.good` `model:fast`") == \
        "no results of kunit, so not shown: D1\nno results of model, so not shown: D1"


def test_results_of_an_earlier_run_do_not_count(capsys, monkeypatch):
    """A part that fails before its tests begin leaves no results."""
    def fails():
        raise steps.Trouble("no kernel")
    monkeypatch.setitem(run_tests.PARTS, "boot-test", fails)
    monkeypatch.setattr(run_tests.sys, "argv", ["run_tests", "boot-test"])
    assert run_tests.main() == 1
    assert "no results of boot-test" in check(capsys, "`tests/boot/test_x.py::test_good`")


@pytest.mark.parametrize(("line", "why"), [
    ("| D2 | a promise | 1 | `model:fast` | |", "D2 stands where D1 should be"),
    ("| D1 | a promise | 1 | | |", "D1 names no test"),
    ("| D1 | | 1 | `model:fast` | |", "no promise"),
    ("| D1 | a promise | `model:fast` | |", "not five cells"),
])
def test_malformed_lines_are_refused(line, why):
    spec.FILE.write_text(line)
    with pytest.raises(steps.Trouble, match=why):
        spec.run()


def test_an_empty_specification_is_no_success():
    spec.FILE.write_text("# Nothing\n")
    assert spec.run() == (0, 1)


def test_the_last_part():
    assert run_tests.wanted()[-1] == "spec"
