# SPDX-License-Identifier: GPL-2.0
"""Runs of hours: results outlive them, and a sample is repeated by its seed."""

import long_run


def test_results_outlive_a_run(tmp_path):
    results = long_run.Results(tmp_path / "results")
    assert results.get("a") is None
    results.put("a", "killed", "cases")
    results.put("b", "fail", "text of a \u2018case\u2019", 3)
    results.put("a", "survived", "")
    results = long_run.Results(tmp_path / "results")
    assert results.get("a") == ["survived", ""]
    assert results.get("b") == ["fail", "text of a \u2018case\u2019", 3]


def test_a_sample_is_repeated_by_its_seed(monkeypatch):
    found = list(range(100))
    assert long_run.sample(found) == found
    monkeypatch.setenv("LIMIT", "5")
    monkeypatch.setenv("SEED", "7")
    assert long_run.sample(found) == long_run.sample(found)
    assert len(set(long_run.sample(found))) == 5
    first = long_run.sample(found)
    monkeypatch.setenv("SEED", "8")
    assert long_run.sample(found) != first
