# SPDX-License-Identifier: GPL-2.0
"""xfstests: cases are selected as asked for, verdicts are read, and a difference is reported."""

import xml.etree.ElementTree as tree

import pytest

import run_tests
import settings
import steps
import xfstests
import xfstests_root
from xfstests import Outcome

GROUPS = {"generic/001": "auto quick", "generic/344": "auto", "ext4/030": "quick",
          "xfs/008": "quick"}
LISTED = [("xfs", "generic/001"), ("ext4-dax", "generic/001"), ("ext4-dax", "ext4/030")]
EXPUNGED = {("ext4-dax", "generic/344"): "a reason", ("xfs", "xfs/008"): "a reason"}

PASS = "FSTYP         -- ext4\n\ngeneric/001        31s\nRan: generic/001\nPassed all 1 tests\n"
SKIPPED = ("generic/001       [not run] this test requires a thing\nRan: generic/001\n"
           "Not run: generic/001\nPassed all 1 tests\n")
FAILED = """generic/344       - output mismatch (see /results/generic/344.out.bad)
    --- tests/generic/344.out
    +++ /results/generic/344.out.bad
    @@ -1,1 +1,2 @@
     QA output created by 344
    +ERROR: page is zero
Ran: generic/344
Failures: generic/344
Failed 1 of 1 tests
"""
INCONSISTENT = """generic/001  _check_generic_filesystem: filesystem on /dev/pmem1 is inconsistent
(see /results/generic/001.full for details)

Ran: generic/001
Failures: generic/001
Failed 1 of 1 tests
"""


def choose(**more):
    """Select cases."""
    return xfstests.choose(GROUPS, LISTED, EXPUNGED, **more)


def test_the_list_is_the_default():
    assert choose() == LISTED


def test_expunged_cases_do_not_run():
    assert xfstests.choose(GROUPS, [*LISTED, *EXPUNGED], EXPUNGED) == LISTED


def test_a_group_runs_in_each_section_that_it_fits():
    assert choose(group="quick") == [
        ("ext4", "generic/001"), ("ext4", "ext4/030"), ("xfs", "generic/001"),
        ("ext4-dax", "generic/001"), ("ext4-dax", "ext4/030"),
        ("xfs-dax", "generic/001"), ("xfs-dax", "xfs/008")]


@pytest.mark.parametrize(("only", "pairs"), [
    ("ext4-dax:*", LISTED[1:]),
    ("*/030 xfs:*", [LISTED[2], LISTED[0]]),
    ("ext4-dax:generic/344", [("ext4-dax", "generic/344")]),
    ("generic/344", [(section, "generic/344") for section in xfstests.SECTIONS]),
    ("xfs:generic/001 generic/*", LISTED[:2]),
])
def test_patterns_select_from_the_list_and_names_from_all(only, pairs):
    assert choose(only=only) == pairs


@pytest.mark.parametrize("more", [{"only": "generic/999"}, {"only": "xfs:ext4/*"},
                                  {"group": "none"}])
def test_a_selection_of_nothing_is_refused(more):
    with pytest.raises(settings.BadSetting, match=next(iter(more)).upper()):
        choose(**more)


@pytest.mark.parametrize(("text", "verdict", "reason"), [
    (PASS, "pass", ""),
    (SKIPPED, "not run", "this test requires a thing"),
    (FAILED, "fail", "generic/344 - output mismatch (see /results/generic/344.out.bad); "
     "+ERROR: page is zero"),
    (INCONSISTENT, "fail",
     "generic/001 _check_generic_filesystem: filesystem on /dev/pmem1 is inconsistent"),
    ("check: failed to mkfs\nPassed all 0 tests\n", "fail",
     "check: failed to mkfs; Passed all 0 tests"),
    ("", "fail", ""),
])
def test_verdicts(text, verdict, reason):
    assert xfstests.read(text) == Outcome(verdict, reason)


def test_only_a_worse_verdict_fails():
    def worse(rust, c):
        return xfstests.worse(Outcome(rust), Outcome(c))

    assert worse("fail", "pass") and worse("not run", "pass") and worse("no end", "fail")
    assert not any(worse(one, one) for one in xfstests.VERDICTS)
    assert not worse("pass", "fail")


OUTCOMES = {
    ("ext4", "generic/001"): {"c": Outcome("pass", "", 5), "rust": Outcome("fail", "a | b", 7)},
    ("ext4", "generic/002"): {"c": Outcome("fail", "e"), "rust": Outcome("pass")},
    ("xfs", "generic/003"): {"c": Outcome("not run", "n"), "rust": Outcome("not run", "n")},
    ("xfs", "generic/004"): {"c": Outcome("pass")},
}


def test_the_report_begins_with_the_differences():
    text = xfstests.report(OUTCOMES, EXPUNGED)
    assert "3 cases, 2 with different verdicts, 1 worse on Rust. 2 are expunged" in text
    different, same = text.split("## Same")
    assert "| ext4 | generic/001 | pass | **fail** | 5, 7 | a \\| b |" in different
    assert "| ext4 | generic/002 | fail | pass | 0, 0 | e |" in different
    assert "| xfs | generic/003 | not run | not run | 0, 0 | n |" in same
    assert "generic/004" not in text  # not yet run on both


def test_the_report_for_machines():
    suite = tree.fromstring(xfstests.junit(OUTCOMES))
    found = {case.get("name"): [child.tag for child in case] for case in suite}
    assert found == {"generic/001": ["failure"], "generic/002": [], "generic/003": ["skipped"]}


PAIRS = [("xfs", f"generic/{number:03}") for number in range(xfstests.SHARE + 1)]


@pytest.fixture(name="verdicts")
def verdicts_of_pairs(monkeypatch, tmp_path):
    """Begin a run of PAIRS, on a kernel, that keeps its verdicts or not."""
    monkeypatch.setattr(settings, "BUILD", tmp_path)
    return lambda kernel="kernel", keep=True: xfstests.Verdicts(PAIRS, {}, kernel, keep)


def test_guests_run_few_cases_on_each_driver(verdicts):
    assert [(len(work.cases), work.driver) for work in verdicts().left(10)] == [
        (xfstests.SHARE, "c"), (xfstests.SHARE, "rust"), (1, "c"), (1, "rust")]


def test_a_later_run_does_what_is_left(verdicts):
    first = verdicts()
    for work in first.left(10)[:3]:  # all on C, all but one on Rust
        first.add(work, {case: Outcome("pass", "", 3) for case in work.cases})
    assert first.count() == (xfstests.SHARE, 0)
    again = verdicts()
    assert again.count() == (xfstests.SHARE, 0)
    assert [(work.cases, work.driver) for work in again.left(10)] == [((PAIRS[-1][1],), "rust")]
    # Another kernel has verdicts of its own, and so has a run that was asked for each case.
    assert len(verdicts("another").left(10)) == len(verdicts(keep=False).left(10)) == 4


def test_no_guest_starts_when_the_time_is_over(monkeypatch):
    monkeypatch.setattr(xfstests, "run", lambda *_: {"a": Outcome("pass")})
    assert xfstests.in_time(None, float("inf"), None, None) == {"a": Outcome("pass")}
    assert xfstests.in_time(None, 0, None, None) == {}


class Machine:
    """A guest that notes what begins."""

    def __init__(self, begun):
        self.begun = begun

    def __enter__(self):
        self.begun.append("guest")
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize(("errors", "verdict", "begun"), [
    (["not done in time"], "no end", ["guest", "a", "b", "guest", "c"]),
    (["x (wrong clock: a fault of QEMU's emulation)"], "pass",
     ["guest", "a", "b", "guest", "b", "c"]),
    (["x (stale breakpoint: a fault of QEMU's emulation)"] * 3, "no end",
     ["guest", "a", "b", "guest", "b", "guest", "b", "guest", "c"]),
])
def test_a_lost_guest_costs_one_case(monkeypatch, tmp_path, errors, verdict, begun):
    """Cases are a, b and c; the guest fails during b."""
    monkeypatch.setattr(settings, "BUILD", tmp_path)
    errors, order = list(errors), []

    def run_case(machine, _work, case):
        machine.begun.append(case)
        if case == "b" and errors:
            raise xfstests.GuestError(errors.pop(0))
        return Outcome("pass")

    monkeypatch.setattr(xfstests, "guest", lambda *_: Machine(order))
    monkeypatch.setattr(xfstests, "run_case", run_case)
    outcomes = xfstests.run(xfstests.Work("xfs", ("a", "b", "c"), "rust", 10), None, tmp_path)
    assert [outcomes[case].verdict for case in "abc"] == ["pass", verdict, "pass"]
    assert order == begun


def test_each_expunged_case_has_a_reason(tmp_path):
    for section in xfstests.SECTIONS:
        xfstests.entries(xfstests.LISTS / f"expunge.{section}")
    (tmp_path / "expunge").write_text("# why\n\ngeneric/001: hangs: both\n")
    assert xfstests.entries(tmp_path / "expunge") == {"generic/001": "hangs: both"}
    assert xfstests.entries(tmp_path / "none") == {}
    (tmp_path / "expunge").write_text("generic/001\n")
    with pytest.raises(steps.Trouble, match="REASON"):
        xfstests.entries(tmp_path / "expunge")


def test_the_list_has_thirty_cases():
    pairs = [xfstests.split(name) for name in xfstests.entries(xfstests.LISTS / "list")]
    assert len(pairs) == 30 and all(xfstests.fits(*pair) for pair in pairs)


def test_a_root_has_all_that_its_packages_need():
    status = "".join(f"{line}\n" for line in (
        "ii \tlibc6 (>= 2), awk | perl\t\tbash\t5", "ii \t, \tawk (= 1), x\tgawk\t1",
        "ii \t, libgone | libnew\t\tlibc6\t2.36", "rc \t\t\told\t1", "ii \t\t\tlibnew\t1",
        "ii \t\t\tunused\t1"))
    assert xfstests_root.closure(status, ["bash"]) == {
        "bash": "5", "gawk": "1", "libc6": "2.36", "libnew": "1"}
    with pytest.raises(steps.Trouble, match="not installed: old"):
        xfstests_root.closure(status, ["bash", "old"])


def test_a_missing_suite_is_named_with_its_source(monkeypatch, tmp_path, capsys):
    with pytest.raises(settings.BadSetting, match="XFSTESTS= is not given: git clone https://"):
        xfstests_root.given()
    assert run_tests.PARTS["xfstests"]() == (0, 0)
    assert "xfstests: skipped: git clone https://" in capsys.readouterr().err
    monkeypatch.setenv("XFSTESTS", str(tmp_path / "none"))
    with pytest.raises(settings.BadSetting, match="does not exist"):
        xfstests_root.given()


def test_the_suite_is_found_in_a_checkout_and_rebuilt_when_it_changes(tmp_path):
    given, folder = tmp_path / "given", tmp_path / "folder"
    for path in ".git/HEAD", "check", "common/check", "tests/generic/group.list":
        (given / path).parent.mkdir(parents=True, exist_ok=True)
        (given / path).write_text("a")
    folder.mkdir()
    assert xfstests_root.unpack(given, folder, None) == folder / "suite"
    before = xfstests_root.digest(given)
    (given / ".git/HEAD").write_text("b")
    assert xfstests_root.digest(given) == before
    (given / "check").write_text("b")
    assert xfstests_root.digest(given) != before


def test_a_folder_without_the_suite_is_refused(tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "folder").mkdir()
    with pytest.raises(settings.BadSetting, match="holds no xfstests"):
        xfstests_root.unpack(tmp_path / "given", tmp_path / "folder", None)
