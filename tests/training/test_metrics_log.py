"""The metrics log after an interruption."""

from __future__ import annotations

from pathlib import Path

from pae_framework.training.metrics_log import MetricsLog, read_log
from pae_framework.training.progress import format_seconds


def steps(path: Path) -> list[float]:
    return [record["step"] for record in read_log(path)]


def test_records_after_the_resumed_step_are_cut(tmp_path: Path):
    first = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        first.write(step, {"loss": 1.0 / step})
    first.close()
    again = MetricsLog(tmp_path, 2)
    again.write(3, {"loss": 0.5})
    again.close()
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3]
    assert read_log(tmp_path / "metrics.jsonl")[-1]["loss"] == 0.5


def test_a_line_cut_by_a_kill_is_left_out(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding="utf-8")
    assert steps(path) == [1]


def test_times_in_words():
    assert format_seconds(41.6) == "42 s"
    assert format_seconds(200) == "3 min 20 s"
    assert format_seconds(7500) == "2 h 05 min"
