"""The metrics log after an interruption; averages of loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pae_framework.lifecycle import LoggedMetrics
from pae_framework.metrics_file import read_log
from pae_framework.system.durations import format_clock, format_seconds
from pae_framework.training.metrics_log import MetricAverages, MetricsLog
from pae_framework.world import World


def steps(path: Path) -> list[float]:
    return [record["step"] for record in read_log(path)]


def test_records_after_the_resumed_step_are_removed(tmp_path: Path):
    first = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        first.write(step, {"loss": 1.0 / step})
    first.close()
    again = MetricsLog(tmp_path, 2)
    again.write(3, {"loss": 0.5})
    again.close()
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3]
    assert read_log(tmp_path / "metrics.jsonl")[-1]["loss"] == 0.5


def test_a_truncated_last_line_is_ignored(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding="utf-8")
    assert steps(path) == [1]


ROWS = b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "loss": 1.0}\n'
DAMAGED = [
    *(b"", b"\xff\xfe", b"\0" * 20, b'{"step": 2, "lo', b"null", b"[1, 2]", b"2", b'"step"'),
    *(b"{}", b'{"loss": 1.5}', b'{"step": "2", "loss": 1.5}', b'{"step": 2.0}', b'{"step": true}'),
    *(b'{"step": null}', b'{"step": 2, "loss": "low"}', b'{"step": 2, "loss": [1.5]}'),
    *(b'{"step": 2, "loss": 1' + b"0" * 400 + b"}", b'{"step": 2, "loss": false}'),
    *(b"[" * 100_000, b"9" * 5000),
]


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: repr(line[:20]))
def test_a_line_that_is_not_a_record_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes
):
    path = tmp_path / "metrics.jsonl"
    first, second, rest = ROWS.partition(b'{"step": 2, "loss": 1.5}')
    path.write_bytes(first + line + rest)
    assert second
    assert steps(path) == [1, 3]
    (message,) = caplog.messages
    assert str(path) in message
    assert message.endswith(": 2")


@given(st.binary(max_size=200) | st.text().map(str.encode), st.integers(0, len(ROWS)))
def test_any_content_can_be_read_and_continued(content: bytes, cut: int):
    with TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        path.write_bytes(ROWS[:cut] + content + ROWS[cut:])
        assert all(isinstance(step, int) for step in steps(path))
        log = MetricsLog(Path(folder), 3)
        log.write(4, {"loss": 0.5})
        log.close()
        assert steps(path)[-1] == 4
        assert all(step <= 4 for step in steps(path))


@pytest.mark.parametrize("content", [None, b"", b"\n", b"not a log", ROWS[:-1]])
def test_a_log_that_is_missing_empty_or_cut(tmp_path: Path, content: bytes | None):
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert steps(path) == ([1, 2, 3] if content == ROWS[:-1] else [])


def test_a_log_that_is_missing_when_a_training_resumes_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    MetricsLog(tmp_path, 0).close()
    assert not caplog.messages
    (tmp_path / "metrics.jsonl").unlink()
    MetricsLog(tmp_path, 4).close()
    (message,) = caplog.messages
    assert str(tmp_path / "metrics.jsonl") in message


@pytest.mark.parametrize("content", [b"", ROWS[:30], ROWS.partition(b'{"step": 3')[0]])
def test_a_log_that_ends_before_the_checkpoint_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    MetricsLog(tmp_path, 3).close()
    (message,) = caplog.messages
    assert str(tmp_path / "metrics.jsonl") in message


def test_steps_that_were_not_logged_before_a_stop_are_not_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "metrics.jsonl").write_bytes(ROWS)
    MetricsLog(tmp_path, 5, logged=3).close()
    assert not caplog.messages


def test_seconds_are_formatted():
    assert format_seconds(41.6) == "42 s"
    assert format_seconds(200) == "3 min 20 s"
    assert format_seconds(7500) == "2 h 05 min"
    assert [format_clock(x) for x in (0, 41.6, 200, 3599.6, 7500)] == [
        *("0:00", "0:42", "3:20", "1:00:00", "2:05:00")
    ]


def collected(*steps: Mapping[str, float]) -> MetricAverages:
    averages = MetricAverages(6, World())
    for terms in steps:
        averages.add({name: torch.tensor(value) for name, value in terms.items()})
    return averages


EARLY, LATE = {"loss": 1.0, "ends": 3.0}, {"loss": 2.0, "starts": 5.0}


def test_a_term_is_averaged_over_the_steps_that_have_it():
    values = collected().summarize([EARLY, LATE, LATE | {"starts": 7.0}])
    assert (values["ends"], values["starts"]) == (3.0, 6.0)
    assert values["loss"] == pytest.approx(5 / 3)


def test_each_step_is_fetched_once_with_its_number_and_terms():
    averages = collected(EARLY, LATE)
    assert averages.fetch(12) == [(11, EARLY), (12, LATE)]
    averages.add({"loss": torch.tensor(4.0)})
    assert averages.fetch(13) == [(13, {"loss": 4.0})]


def test_a_listener_is_told_each_line_once_it_is_written(tmp_path: Path):
    told: list[tuple[LoggedMetrics, list[float]]] = []
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ROWS)
    log = MetricsLog(tmp_path, 2, listener=lambda metrics: told.append((metrics, steps(path))))
    values = {"loss": 0.5}
    log.write(3, values)
    values["loss"] = 9.0
    log.close()
    ((metrics, written),) = told
    assert (metrics.step, dict(metrics.values), metrics.resumed_from) == (3, {"loss": 0.5}, 2)
    assert written == [1, 2, 3]
