"""Values of profiles: times, memory, flags, and which resources a stage gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pae_framework.recipe.profile_settings import Profile, Resources, seconds_of, written_time

DAY = 24 * 3600


def time_of(value: object) -> str | None:
    return Resources.model_validate({"time": value}).time


def memory_of(value: object) -> str | None:
    return Resources.model_validate({"memory": value}).memory


def refusal(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Resources.model_validate(values)
    return str(caught.value)


# --- times, as in the manual page of sbatch -------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("12:00:00", 12 * 3600),
        ("00:00:30", 30),
        ("36:00:00", 36 * 3600),
        ("2-00:00:00", 2 * DAY),
        ("1-02:03:04", DAY + 2 * 3600 + 3 * 60 + 4),
        ("2-12", 2 * DAY + 12 * 3600),
        ("2-12:30", 2 * DAY + 12 * 3600 + 30 * 60),
        (90, 90 * 60),
        ("90", 90 * 60),
        (1440, DAY),
    ],
)
def test_a_time_is_what_slurm_means_by_it(written: object, seconds: int) -> None:
    time = time_of(written)
    assert time is not None
    assert seconds_of(time) == seconds


@given(st.integers(1, 366 * DAY))
def test_a_written_time_is_read_as_the_same_time(seconds: int) -> None:
    text = written_time(seconds)
    assert seconds_of(text) == seconds
    assert time_of(text) == text


@given(st.integers(1, 366 * DAY))
def test_minutes_cover_the_time_and_less_than_a_minute_more(seconds: int) -> None:
    minutes = Resources(time=written_time(seconds)).minutes
    assert minutes is not None
    assert 0 <= minutes * 60 - seconds < 60


@pytest.mark.parametrize(
    "written",
    [
        *("", "soon", "12h", "1:2:3", "12:60:00", "12:00:61", "1-24:00:00", "-5", "00:00:00", "0"),
        *("infinite", "12:00:00 ", "400-00:00:00", "\u0661\u0662:\u0660\u0660:\u0660\u0660"),
        *(0, -1, 1.5, True, [1], {"hours": 1}, 10**30),
    ],
)
def test_anything_else_is_no_time(written: object) -> None:
    assert "time" in refusal(time=written)


def test_a_time_of_two_numbers_is_ambiguous_and_both_readings_are_offered() -> None:
    """Slurm reads 12:30 as minutes and seconds, most people as hours and minutes."""
    message = refusal(time="12:30")
    assert "12:30:00" in message
    assert "00:12:30" in message


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "mib"),
    [
        ("64GB", 64 * 1024),
        ("64G", 64 * 1024),
        ("64 GiB", 64 * 1024),
        ("64gb", 64 * 1024),
        ("1.5T", 1536 * 1024),
        ("512M", 512),
        ("0.5GB", 512),
    ],
)
def test_memory_is_in_powers_of_1024(written: str, mib: int) -> None:
    assert Resources.model_validate({"memory": written}).mib == mib


@given(st.integers(1, 1 << 30))
def test_memory_is_normalized_once(mib: int) -> None:
    once = memory_of(f"{mib}MB")
    assert Resources.model_validate({"memory": once}).mib == mib
    assert memory_of(once) == once


def test_all_memory_of_a_node_is_no_amount() -> None:
    assert memory_of("all") == "all"
    assert Resources(memory="all").mib is None


@pytest.mark.parametrize(
    "written", ["", "64", 64, "64KB", "64PB", "-1GB", "0GB", "0.3MB", "lots", 1.5, True, ["1GB"]]
)
def test_anything_else_is_no_memory(written: object) -> None:
    assert refusal(memory=written)


@pytest.mark.parametrize("written", [64000, "64000"])
def test_memory_without_a_unit_is_asked_back(written: object) -> None:
    """Slurm means MB by it."""
    message = refusal(memory=written)
    assert "64000MB" in message
    assert "64000GB" in message


# --- names and flags ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint"])
@pytest.mark.parametrize("written", ["", "two words", "--exclusive", "a\nb", "a'b", 5])
def test_names_are_one_argument_of_sbatch(key: str, written: object) -> None:
    assert key in refusal(**{key: written})


@pytest.mark.parametrize("flag", ["exclusive", "reservation", "mail-user", "gres"])
def test_any_other_long_option_is_a_flag(flag: str) -> None:
    assert Resources(flags={flag: True}).flags == {flag: True}


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("time", "time"),
        ("mem", "memory"),
        ("ntasks-per-node", "tasks_per_node"),
        ("gpus-per-node", "gpus_per_node"),
        ("signal", "signal_before"),
    ],
)
def test_a_flag_that_has_a_key_names_the_key(flag: str, key: str) -> None:
    assert f"set {key}" in refusal(flags={flag: 1})


@pytest.mark.parametrize("flag", ["dependency", "array", "output", "error", "requeue", "open-mode"])
def test_flags_that_a_run_sets_are_refused(flag: str) -> None:
    assert flag in refusal(flags={flag: "x"})


@pytest.mark.parametrize("flag", ["--exclusive", "-N", "Exclusive", "a b", "mail_user", "x=1", ""])
def test_other_spellings_are_no_flags(flag: str) -> None:
    assert refusal(flags={flag: True})


# --- stages ---------------------------------------------------------------------------------------


def test_a_stage_has_the_resources_of_the_profile_unless_it_states_its_own() -> None:
    profile = Profile.model_validate(
        {
            "partition": "gpu",
            "nodes": 2,
            "gpus_per_node": 4,
            "time": "12:00:00",
            "flags": {"exclusive": True, "reservation": "r"},
            "stages": {
                "report": {"nodes": 1, "gpus_per_node": None, "flags": {"exclusive": False}}
            },
        }
    )
    generator, report = profile.for_stage("generator"), profile.for_stage("report")
    assert (generator.nodes, generator.processes, generator.partition) == (2, 8, "gpu")
    assert (report.nodes, report.gpus_per_node, report.processes) == (1, None, 1)
    assert (report.partition, report.time) == ("gpu", "12:00:00")
    assert generator.flags == {"exclusive": True, "reservation": "r"}
    assert report.flags == {"exclusive": False, "reservation": "r"}


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "partition": st.sampled_from(["a", "b", None]),
    "nodes": st.integers(1, 8),
    "gpus_per_node": st.none() | st.integers(0, 8),
    "tasks_per_node": st.none() | st.integers(1, 8),
    "memory": st.sampled_from(["1GB", "all", None]),
    "time": st.sampled_from(["01:00:00", "2-00:00:00"]),
}
RESOURCES = st.fixed_dictionaries({}, optional=VALUES)


@given(RESOURCES, RESOURCES)
def test_each_key_of_a_stage_is_its_own_or_the_profiles(
    common: dict[str, Any], own: dict[str, Any]
) -> None:
    profile = Profile.model_validate({**common, "stages": {"encoder": own}})
    assert profile.for_stage("encoder") == Resources.model_validate({**common, **own})
    assert profile.for_stage("tokenizer") == Resources.model_validate(common)


@pytest.mark.parametrize(
    ("asked", "processes"),
    [
        ({}, 1),
        ({"gpus_per_node": 0}, 1),
        ({"gpus_per_node": 4}, 4),
        ({"gpus_per_node": 4, "tasks_per_node": 2}, 2),
        ({"nodes": 3, "gpus_per_node": 4}, 12),
        ({"nodes": 3}, 3),
    ],
)
def test_there_is_one_process_for_each_gpu_or_one_on_each_node(
    asked: dict[str, int], processes: int
) -> None:
    assert Resources.model_validate(asked).processes == processes
