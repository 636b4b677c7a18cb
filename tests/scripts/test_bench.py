# SPDX-License-Identifier: GPL-2.0
"""The benchmark parses fio and strace, and reports no target as met that is missed."""

import itertools
import json
import sys
import types
import xml.etree.ElementTree

import pytest

import accel
import bench
import bench_report
import kernel
import settings
import steps
from bench_report import DEVICES, MODES, Count, Latency, Point, Results, Target


def filled(rust=(20000, 21000, 19000)):
    results = Results()
    for jobs, c, ours, blk in [(1, (990, 1000, 1010), (1000, 1010, 1020), (2000,) * 3),
                               (64, (200, 220, 180), rust, (15000, 16000, 40000))]:
        for device, rates in (("c", c), ("rust", ours), ("off", (1000, 1001, 1002)), ("blk", blk)):
            for rate in rates:
                results.add(Point(10, "fsync", jobs), device, rate)
    for rate in (24000, 25000, 26000):
        results.add(Point(0, "sync", 64), "rust", rate - 4000)
        results.add(Point(0, "sync", 64), "none", rate)
    results.add_count(10, "fsync", "c", Count(500, 500))
    results.add_count(10, "fsync", "rust", Count(15, 900))
    for device, count in (("c", 2000), ("rust", 1800), ("none", 1000)):
        results.add_instructions(64, device, count)
    for load, on in (("closed", 5), ("open", 10.2)):
        results.add_latency(10, load, "rust", Latency(on, on, on))
        results.add_latency(10, load, "off", Latency(10, 10, 10))
    return results


def test_each_round_is_compared_with_itself():
    results = filled()
    point = Point(10, "fsync", 64)
    assert results.median(point, "blk") == 16000
    assert results.ratios(point, "rust", "c") == pytest.approx([100, 95.45, 105.56], abs=0.01)
    assert results.ratios(point, "rust", "nothing") == []
    assert results.median(Point(2, "fsync", 64), "c") is None


def test_targets_are_held_against_what_was_measured():
    found = {target.text: target.verdict for target in bench_report.targets(filled())}
    assert found == {
        "rust/c at 64 jobs, fsync, host fsync +10 ms": "met",
        "rust/blk at 64 jobs, fsync, host fsync +10 ms": "met",
        "rust/none at 64 jobs, sync, host as it is": "met",
        "rust/c at 1 job, fsync, host fsync +10 ms": "met",
        "rust/off at 1 job, fsync, host fsync +10 ms": "met",
        "host flushes per caller at 64 jobs, fsync, host fsync +10 ms": "met",
        "median latency, rust/off at 64 jobs, host fsync +10 ms": "met",
        "mean latency, rust/off, open load, host fsync +10 ms": "met",
        "the guest's instructions for a flush, rust/c at 64 jobs": "met",
    }
    found = {target.text: target.verdict
             for target in bench_report.targets(filled(rust=(5000, 6000, 7000)))}
    assert found["rust/c at 64 jobs, fsync, host fsync +10 ms"] == "not met"


def test_a_write_may_be_two_callers():
    results = Results()
    results.add_count(2, "sync", "rust", Count(90, 600, callers=1200))
    (target,) = bench_report.targets(results)
    assert target.values == (0.075,) and target.verdict == "met"
    assert results.counts[2, "sync", "rust"].share == 0.15


@pytest.mark.parametrize(("values", "at_most", "verdict"), [
    ((0.9, 1.0, 1.2), False, "met"),
    ((0.9, 0.99, 1.2), False, "not met, but within the spread of the rounds"),
    ((0.9, 0.95, 0.99), False, "not met"),
    ((1.1,), True, "not met"),
    ((0.9,), True, "met"),
])
def test_verdicts(values, at_most, verdict):
    target = Target("text", 1, values, at_most)
    assert target.verdict == verdict and str(target).endswith(verdict)


def test_the_table_shows_medians_and_ratios():
    lines = bench_report.table(filled()).splitlines()
    heads = ["jobs", "c", "rust", "off", "blk", "none", "rust/c", "rust/off", "rust/blk"]
    assert lines[1].split() == heads
    assert lines[2].split() == ["64", "-", "21000", "-", "-", "25000", "-", "-", "-"]
    assert lines[7].split() == ["64", "200", "20000", "1001", "16000", "-", "100", "20.0", "1.31"]
    assert lines[11].split() == ["rust", "5.00", "5.00", "5.00"]
    assert lines[-5].split()[-2:] == ["1.00", "0.0167"]
    assert lines[-1].split() == ["64", "2000", "(1000)", "1800", "(800)", "1000", "(0)"]


def test_a_table_with_gaps():
    results = Results()
    results.add(Point(0, "sync", 1), "c", 5)
    assert bench_report.table(results).splitlines()[2].split() == ["1", "5.00", *"-------"]
    assert bench_report.targets(results) == []


def test_the_document_is_json():
    text = json.dumps(bench_report.document(filled(), {"rounds": 3}))
    again = json.loads(text)
    assert again["about"] == {"rounds": 3}
    assert {"host_delay_ms": 10, "mode": "fsync", "jobs": 64, "device": "rust",
            "flushes": 15, "writes": 900, "callers": None} in again["host_flushes"]
    assert len(again["rates"]) == 10 and len(again["ratios"]) == 7 and len(again["targets"]) == 9
    assert {"host_delay_ms": 10, "load": "closed", "device": "rust",
            "rounds": [{"mean": 5, "p50": 5, "p99": 5}]} in again["latencies"]


def group(name, iops=5.5, writes=9, error=0, *, timed=False):
    times = {"N": 9, "mean": 2e6, "percentile": {"50.000000": 1500000, "99.000000": 4000000}}
    return {"jobname": name, "error": error,
            "write": {"iops": iops, "total_ios": writes, "clat_ns": times if timed else {"N": 0}}}


def test_fio_report():
    text = "note: something\n" + json.dumps(
        {"jobs": [group("1"), group("64", 7.5, 80, timed=True)]})
    assert bench.fio_writes(text) == {1: (5.5, 9, None), 64: (7.5, 80, Latency(2, 1.5, 4))}


@pytest.mark.parametrize("text", [
    "fio: it went wrong", "{", '{"jobs": [{}]}', json.dumps({"jobs": [group("1", error=5)]}),
    json.dumps({"jobs": [group("64", writes=0)]}),
])
def test_a_bad_fio_report_is_no_measurement(text):
    with pytest.raises(steps.Trouble):
        bench.fio_writes(text)


def test_fio_measures_one_number_of_jobs_after_the_other():
    text = bench.fio_text("/dev/vda", "sync", (1, 64), 1.5)
    assert "sync=1" in text
    assert text.endswith("[1]\nnumjobs=1\nstonewall\ntime_based\nruntime=1500ms\n"
                         "[64]\nnumjobs=64\nstonewall\ntime_based\nruntime=1500ms")
    text = bench.fio_text("/dev/vda", "sync", (64,), 0, writes=640)
    assert text.endswith("[64]\nnumjobs=64\nstonewall\nnumber_ios=10")


def test_strace_log(tmp_path):
    host = bench.Host(tmp_path, 2, counting=True)
    host.log.write_text("12 fsync(9 <unfinished ...>\n13 fdatasync(10) = 0 (DELAYED)\n"
                        "12 <... fsync resumed>) = 0 (DELAYED)\n12 +++ exited with 0 +++\n")
    assert host.fsyncs() == 2
    assert "inject=fsync,fdatasync:delay_enter=2ms" in host.wrapper()


def test_the_host_as_it_is_runs_without_strace(tmp_path):
    host = bench.Host(tmp_path, 0, counting=False)
    assert host.wrapper() == [] and host.args() == []


def test_a_serial_host_has_one_thread(tmp_path):
    host = bench.Host(tmp_path, 10, counting=False, serial=True)
    assert any("thread-pool-max=1" in word for word in host.args())


def test_the_default_run_is_short(monkeypatch):
    assert bench.plan().estimate() <= 1800
    monkeypatch.setenv("QUICK", "1")
    assert bench.plan().estimate() <= 900


@pytest.mark.parametrize(("name", "value"), [("JOBS", "many"), ("JOBS", "0"), ("DELAYS", "-1"),
                                             ("QUICK", "yes"), ("ROUNDS", "0")])
def test_bad_variables(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.BadSetting, match=name):
        bench.plan()


@pytest.mark.parametrize(("delays", "modes"), [((0,), ("fsync",)), ((0, 2, 10), tuple(MODES))])
def test_drawing(tmp_path, monkeypatch, delays, modes):
    """Each drawing names all devices, and each panel."""
    monkeypatch.setattr(settings, "LOGS", tmp_path / "logs")
    results = Results()
    for delay, mode, jobs, device in itertools.product(delays, modes, (1, 64), DEVICES):
        for rate in (900, 1000, 20000):
            results.add(Point(delay, mode, jobs), device, rate)
    source, target = tmp_path / "bench.json", tmp_path / "bench.svg"
    source.write_text(json.dumps(bench_report.document(results, {})))
    bench.draw(sys.executable, source, target)
    found = xml.etree.ElementTree.parse(target).getroot()
    words = ["".join(element.itertext()) for element in found.iter() if "text" in element.tag]
    assert {"virtio-pmem, C driver", "virtio-pmem, Rust driver", "virtio-blk"} <= set(words)
    assert words.count("writes per second") == len(modes)
    assert sum("host" in line for line in words) == len(delays) * len(modes)


def test_circumstances_can_be_written(monkeypatch, tmp_path):
    """What a benchmark ran on is found and goes into its JSON file."""
    monkeypatch.setenv("ACCEL", "tcg")
    monkeypatch.setattr(bench, "Host", lambda *_, **__: types.SimpleNamespace(alone=dict))
    accel.choose.cache_clear()
    found = bench.about(kernel.Kernel("release", tmp_path), tmp_path, bench.plan())
    assert json.loads(json.dumps(found))["accelerator"] == "tcg"
