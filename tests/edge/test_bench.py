"""The bench measures the real path and says so in the contract's words."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edge.bench_alarm import run_alarm_bench
from models.card import newest


def test_the_bench_tells_speed_and_memory() -> None:
    # A process of its own: it ties itself to one core.
    command = [sys.executable, "-m", "edge.cli", "bench", "--wearables", "4", "--seconds", "6", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (line,) = map(json.loads, ended.stdout.splitlines())
    assert set(line) >= {
        "wearables", "cpu_us_per_wearable_second", "realtime_factor", "decision_ms", "rss_mib", "ready_s", "model",
    }  # fmt: skip
    assert (line["wearables"], line["model"]) == (4, newest("wrist").name)
    assert line["cpu_us_per_wearable_second"] > 0
    assert line["realtime_factor"] > 1
    assert set(line["decision_ms"]) == {"p50", "p99", "max"}
    assert 0 < line["decision_ms"]["p50"] <= line["decision_ms"]["p99"] <= line["decision_ms"]["max"]
    assert 20 < line["rss_mib"] < 500
    assert 0 < line["ready_s"] < 30
    assert line["windows"] >= 4 * 10  # two a second, for each, from the first on


@pytest.mark.parametrize("kind", ["polar", "witmotion", "witmotion-ble", "mqtt"])
def test_wearables_one_can_buy_are_measured_alike(kind: str) -> None:
    command = [
        sys.executable,
        "-m",
        "edge.cli",
        "bench",
        "--wearables",
        "2",
        "--seconds",
        "6",
        "--kind",
        kind,
        "--json",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    line = json.loads(ended.stdout)
    assert line["kind"] == kind
    assert line["windows"] >= 2 * 8  # a fault in the made-up octets would leave none


def test_the_alarm_service_is_measured_from_the_journal_to_the_pager() -> None:
    result = run_alarm_bench(3, idle_s=1.0)
    assert result["incidents"] == 3
    assert 0 < result["page_s"]["p50"] <= result["page_s"]["p99"] <= result["page_s"]["max"] < 10
    assert 0 < result["ready_s"] < 20
    assert 10 < result["rss_mib"] < 100
    assert 0 < result["written_kib_per_incident"] < 5000
