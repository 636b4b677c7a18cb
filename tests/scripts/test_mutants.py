# SPDX-License-Identifier: GPL-2.0
"""Which mutants there are, what is kept of them, and what the report complains about."""

import json

import pytest

import long_run
import mutants
import mutate
import settings

CODE = '''\
impl Queue {
    /// Takes an answer; `self.wake();` here is no statement.
    fn take(&mut self, waker: impl Fn() -> bool) {
        let mut count = 0;
        // A comment.
        self.count += 1;
        debug_assert!(self.count > 0);
        self.host.answer(
            1,
            "a; {string",
        );
        if self.count > 2 {
            return;
        }
        let _ = self.drop_it();
        // SAFETY: It is ours.
        unsafe { complete(self.0) };
        match self.state {
            State::Idle => self.pump(count),
            State::Busy => {}
        }
        self.wake()
    }

    fn len(&self) -> usize {
        let range = Range {
            start: 1,
        };
        self.list.len()
    }
}
'''


def names(text):
    """Return what is removed, without the function's name."""
    return [name.removeprefix("remove ").rsplit(" in ", 1)[0]
            for *_, name in mutate.removals(text)]


def test_statements_and_calls_are_removed():
    assert names(CODE) == [
        "self.count += 1;", 'self.host.answer( 1, "a; {string", );', "return;",
        "let _ = self.drop_it();", "unsafe { complete(self.0) };", "self.pump(count)",
        "self.wake()",
    ]


def test_a_removal_leaves_the_rest():
    for _, start, end, new, name in mutate.removals(CODE):
        changed = mutate.Mutant("a.rs", name, start, end, new).apply(CODE)
        assert len(changed) == len(CODE) - (end - start) + len(new)
        assert changed.count("\n") == CODE.count("\n") - CODE[start:end].count("\n")
    assert "State::Idle => (),\n" in mutate.Mutant(
        "a.rs", "", *next(found[1:4] for found in mutate.removals(CODE)
                          if "pump" in found[4])).apply(CODE)


def test_operators_are_those_of_cargo_mutants(tmp_path, monkeypatch):
    """Equal ones are numbered, and tests at the end of a file are left alone."""
    text = "fn a(b: u8) -> bool {\n    b > 1 && b > 2\n}\nfn test() {\n    0 > 1;\n}\n"
    (tmp_path / "a.rs").write_text(text)

    def greater(line, column):
        start, end = ({"line": line, "column": number} for number in (column, column + 1))
        return {"name": f"a.rs:{line}:{column}: replace > with <", "replacement": "<",
                "span": {"start": start, "end": end}}
    monkeypatch.setattr(mutate.steps, "output", lambda _: json.dumps(
        [greater(2, 7), greater(2, 16), greater(5, 7)]))
    found = mutate.mutants("tool", tmp_path, "a.rs", 4)
    assert [one.name for one in found] == ["replace > with <", "replace > with < #2"]
    assert found[1].apply(text) == text.replace("b > 2", "b < 2")


def test_a_survivor_is_tested_again_by_other_tests():
    results = {"a": [mutants.KILLED, "cases", "tests 1"], "b": [mutants.SURVIVED, "", "tests 1"]}
    assert mutants.kept(results, "a", "tests 2") == (mutants.KILLED, "cases")
    assert mutants.kept(results, "b", "tests 1") == (mutants.SURVIVED, "")
    assert mutants.kept(results, "b", "tests 2")[0] is None
    assert mutants.kept(results, "c", "tests 1")[0] is None


def test_a_fault_does_not_outlive_a_run(tmp_path, monkeypatch):
    for name in ("here", "tree", "notes"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(mutants, "FOLDER", tmp_path / "notes")
    monkeypatch.setattr(settings, "ROOT", tmp_path / "here")
    (tmp_path / "here/a.rs").write_text("right")
    (tmp_path / "tree/a.rs").write_text("wrong")
    mutants.repair()
    assert (tmp_path / "tree/a.rs").read_text() == "wrong"
    mutants.note(tmp_path / "tree", "a.rs")
    mutants.repair()
    assert (tmp_path / "tree/a.rs").read_text() == "right"
    assert not list((tmp_path / "notes").iterdir())


@pytest.mark.parametrize(("script", "passed"), [
    ("echo '    ok 1 one'; echo '        ok 2 two # SKIP'; echo 'ok 1 suite'", 2),
    ("echo '    ok 1 one'; echo '    not ok 2 two'; exec sleep 1000", -1),
    ("echo '    ok 1 one'; echo 'BUG: KASAN'; exec sleep 1000", -1),
    ("echo '    ok 1 one'; echo hangs; exec sleep 1000", -1),
    ("echo '    ok 1 one'; exit 1", 1),
])
def test_kunit_ends_with_the_first_failure(tmp_path, script, passed):
    """A test that hangs has failed, and so has a run with fewer tests than without a fault."""
    path = tmp_path / "linux"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    runner = mutants.Uml.__new__(mutants.Uml)
    runner.out = tmp_path
    assert runner.run("virtio*", 1 if "hangs" in script else 600) == passed


def test_files_of_the_flush_path_are_tested_twice():
    """loom tests them, too; the model has the others of them for itself."""
    text = (settings.TESTS / "concurrency/build.rs").read_text()
    for file in mutants.CONCURRENT:
        name = file.removesuffix(".rs").split("/", 3 if file.startswith("drivers/") else 2)[-1]
        assert f'    "{name}",\n' in text and (settings.ROOT / file).exists()
        assert mutants.runners_of(file) == (mutants.Uml, mutants.Concurrency)
    assert mutants.runners_of(mutants.ENGINE) == (mutants.Model,)
    assert mutants.runners_of("rust/kernel/virtio.rs") == (mutants.Uml,)


@pytest.mark.parametrize(("first", "outcome"), [
    (mutants.KILLED, (mutants.KILLED, "first")),
    (mutants.COMPILED, (mutants.COMPILED, "first")),
    (mutants.SURVIVED, (mutants.KILLED, "second")),
])
def test_what_survives_is_tested_further(tmp_path, monkeypatch, first, outcome):
    def runner(name, found):
        return type(name, (), {"tests": staticmethod(lambda: name),
                               "__init__": lambda self, *_: None,
                               "test": lambda self, _: (found, name)})
    kinds = runner("first", first), runner("second", mutants.KILLED)
    monkeypatch.setattr(mutants, "runners_of", lambda _: kinds)
    found = job("a", None)
    mutants.work([found], long_run.Results(tmp_path / "results"), None)
    assert (found.outcome, found.by) == outcome


def job(name, outcome, file="drivers/a.rs"):
    """Return a mutant with its outcome."""
    return mutants.Job(mutate.Mutant(file, name, 0, 0, ""), name, outcome)


@pytest.mark.parametrize(("survivor", "reasons", "complaints"), [
    ("b", {("drivers/a.rs", "b"): "equivalent"}, 0),
    ("b", {}, 1),
    ("b", {("drivers/a.rs", "b"): ""}, 1),
    ("b", {("drivers/a.rs", "b"): "equivalent", ("drivers/a.rs", "k0"): "killed"}, 1),
    ("b", {("drivers/a.rs", "b"): "equivalent", ("drivers/a.rs", "gone"): "deleted"}, 1),
])
def test_survivors_need_a_reason(capsys, survivor, reasons, complaints):
    found = [job(survivor, mutants.SURVIVED), job("c", mutants.COMPILED), job("d", None),
             *(job(f"k{number}", mutants.KILLED) for number in range(9))]
    assert mutants.report(found, reasons, {one.place for one in found}) == complaints
    assert "90 %" in capsys.readouterr().out


def test_scores_have_targets(capsys):
    found = [job("a", mutants.SURVIVED, mutants.ENGINE),
             *(job(f"k{number}", mutants.KILLED, mutants.ENGINE) for number in range(8))]
    reasons = {(mutants.ENGINE, "a"): "equivalent"}
    assert mutants.report(found, reasons, {one.place for one in found}) == 1
    assert "less than 90 % of the engine" in capsys.readouterr().out


def test_reasons_are_under_their_mutants(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "REASONS", tmp_path / "survivors")
    mutants.REASONS.write_text("# comment\n\na.rs: replace > with < in f\n    One\n    two.\n"
                               "b.rs: remove x: y; in g\nb.rs: remove z; in g\n    Three.\n"
                               "c.rs: remove z; in g\n")
    assert mutants.reasons() == {("a.rs", "replace > with < in f"): "One two.",
                                 ("b.rs", "remove x: y; in g"): "Three.",
                                 ("b.rs", "remove z; in g"): "Three.",
                                 ("c.rs", "remove z; in g"): ""}
