"""What a Slurm site would refuse of a profile's jobs; a fake ``sinfo`` stands for the site."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.errors import Problem
from pae_framework.preflight.profile_checks import machine_of_jobs, refused
from pae_framework.preflight.slurm_site import (
    NodeKind,
    Partition,
    SiteUnknownError,
    parse_partitions,
    read_partitions,
)
from pae_framework.recipe.profiles import FoundProfile, Profiles

# partition | state | time limit | nodes | CPUs | MB | generic resources | features, as by --format
SITE = """\
cpu*|up|infinite|10|32|128000|(null)|(null)
gpu|up|2-00:00:00|4|64|512000|gpu:a100:4(S:0-1)|a100,ib
gpu|up|2-00:00:00|2|96|1024000|gpu:h100:8(S:0-1),nvme:1|h100,ib
test|up|30:00|1|8|16000|gpu:2|(null)
old|down|1:00:00|3|16|64000|(null)|(null)
"""


def profile(tmp_path: Path, **keys: object) -> FoundProfile:
    """A profile named ``site`` with the given keys, each on a line of its own from line 3."""
    file = tmp_path / "profiles.yaml"
    time = {"time": "00:30:00"} | keys
    file.write_text("\n".join(["site:", "  executor: slurm", *(f"  {k}: {time[k]}" for k in time)]))
    return Profiles(file).find("site")


def refusals(tmp_path: Path, **keys: object) -> list[Problem]:
    return refused(profile(tmp_path, **keys), ["tokenizer", "generator"], parse_partitions(SITE))


def fake_sinfo(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a shell script in place of ``sinfo``."""
    sinfo = folder / "bin" / "sinfo"
    sinfo.parent.mkdir()
    sinfo.write_text(f"#!/bin/sh\n{script}\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sinfo.parent}:/usr/bin:/bin")


def test_the_answer_of_sinfo_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answer").write_text(SITE)
    fake_sinfo(tmp_path, monkeypatch, f"cat {tmp_path}/answer")
    cpu, gpu, test, old = read_partitions()
    assert cpu == Partition("cpu", "up", None, (NodeKind(10, 32, 128000, 0),), default=True)
    assert gpu.minutes == 2 * 24 * 60
    assert gpu.nodes == (
        NodeKind(4, 64, 512000, 4, frozenset({"a100", "ib"})),
        NodeKind(2, 96, 1024000, 8, frozenset({"h100", "ib"})),
    )
    assert (test.minutes, test.nodes[0].gpus) == (30, 2)
    assert (old.state, old.minutes) == ("down", 60)


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", 0),
        ("gpu", 1),
        ("gpu:2", 2),
        ("gpu:a100", 1),
        ("gpu:a100:4", 4),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a100:2(S:0),gpu:h100:2(S:1,3)", 4),
        ("nvme:1,gpu:8", 8),
        ("nogpu:3,mps:100", 0),
    ],
)
def test_gpus_are_counted_over_all_their_types(gres: str, gpus: int) -> None:
    (partition,) = parse_partitions(f"p|up|infinite|1|1|1|{gres}|(null)\n")
    assert partition.nodes[0].gpus == gpus


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Unable to contact slurm controller' >&2; exit 1", "contact slurm controller"),
        ("exit 3", "3"),
        ("echo what is this", "what is this"),
        ("echo 'p|up|infinite|x|1|1|(null)|(null)'", "x"),
    ],
)
def test_a_site_that_does_not_answer_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    fake_sinfo(tmp_path, monkeypatch, script)
    with pytest.raises(SiteUnknownError) as caught:
        read_partitions()
    assert reason in str(caught.value)


def test_a_machine_without_slurm_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SiteUnknownError):
        read_partitions()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"partition": "gpu", "gpus_per_node": 4, "nodes": 6},
        {"partition": "gpu", "gpus_per_node": 8, "nodes": 2, "cpus_per_task": 12},
        {"partition": "gpu", "time": "2-00:00:00"},
        {"partition": "cpu", "time": "300-00:00:00", "memory": "125GB"},
        {"partition": "gpu", "constraint": "h100", "nodes": 2},
        {"partition": "gpu", "constraint": "'[a100|v100]'"},
        {"partition": "cpu,gpu", "gpus_per_node": 4},
    ],
)
def test_what_the_site_has_is_not_refused(tmp_path: Path, keys: dict[str, object]) -> None:
    assert refusals(tmp_path, **keys) == []


@pytest.mark.parametrize(
    ("keys", "key", "mentions"),
    [
        ({"partition": "gpus"}, "partition", "did you mean 'gpu'"),
        ({"partition": "cpu,nowhere"}, "partition", "'nowhere'"),
        ({"partition": "old", "nodes": 1}, "partition", "down"),
        ({"gpus_per_node": 1}, "gpus_per_node", "has 0"),
        ({"partition": "gpu", "gpus_per_node": 9}, "gpus_per_node", "has 8"),
        ({"partition": "gpu", "cpus_per_task": 97}, "cpus_per_task", "has 96"),
        ({"partition": "gpu", "gpus_per_node": 8, "cpus_per_task": 13}, "cpus_per_task", "104 CPU"),
        ({"partition": "gpu", "memory": "1001GB"}, "memory", "1001GB"),
        ({"partition": "gpu", "time": "2-00:01:00"}, "time", "2-00:00:00"),
        ({"partition": "test", "time": "00:31:00"}, "time", "00:30:00"),
        ({"partition": "gpu", "nodes": 7}, "nodes", "has 6"),
        ({"partition": "gpu", "nodes": 3, "gpus_per_node": 8}, "nodes", "has 2"),
        ({"partition": "gpu", "nodes": 5, "constraint": "a100"}, "nodes", "has 4"),
        ({"partition": "gpu", "constraint": "a10"}, "constraint", "did you mean 'a100'"),
        ({"partition": "cpu", "constraint": "ib"}, "constraint", "no features"),
        ({"partition": "cpu,test", "gpus_per_node": 4}, "gpus_per_node", "4 GPUs"),
    ],
)
def test_what_the_site_would_refuse_is_one_problem_at_its_key(
    tmp_path: Path, keys: dict[str, object], key: str, mentions: str
) -> None:
    (problem,) = refusals(tmp_path, **keys)
    assert problem.path == f"site.{key}"
    assert mentions in f"{problem.message}; {problem.hint}"
    if key in keys:
        line = (tmp_path / "profiles.yaml").read_text().split(f"  {key}:")[0].count("\n") + 1
        assert problem.where.startswith(f"{tmp_path}/profiles.yaml:{line}:")


def test_several_refusals_are_reported_together(tmp_path: Path) -> None:
    found = refusals(tmp_path, partition="gpu", gpus_per_node=16, memory="2TB", time="3-00:00:00")
    assert {problem.path for problem in found} == {"site.gpus_per_node", "site.memory", "site.time"}


def test_resources_of_a_stage_are_refused_at_that_stage(tmp_path: Path) -> None:
    stages = "{generator: {gpus_per_node: 9}, encoder: {gpus_per_node: 99}}"
    (problem,) = refusals(tmp_path, partition="gpu", stages=stages)
    assert problem.path == "site.stages.generator.gpus_per_node"


def test_a_site_without_a_default_needs_a_partition(tmp_path: Path) -> None:
    site = parse_partitions(SITE.replace("*", ""))
    (problem,) = refused(profile(tmp_path), ["tokenizer"], site)
    assert problem.path == "site.partition"
    assert "'gpu'" in problem.hint or "gpu" in problem.hint


def test_the_machine_of_the_jobs_is_the_largest_that_a_stage_asks_for(tmp_path: Path) -> None:
    found = profile(tmp_path, memory="8GB", stages="{generator: {gpus_per_node: 2, memory: 32GB}}")
    machine = machine_of_jobs(found, ["tokenizer", "generator"])
    assert (machine.memory, len(machine.gpus)) == (32 << 30, 2)
    alone = machine_of_jobs(found, ["tokenizer"])
    assert (alone.memory, len(alone.gpus)) == (8 << 30, 0)
    assert machine_of_jobs(profile(tmp_path), ["tokenizer"]).memory is None


@pytest.mark.slurm
def test_a_real_site_is_read(tmp_path: Path) -> None:
    partitions = read_partitions()
    assert partitions
    for partition in partitions:
        assert all(node.count > 0 and node.cpus > 0 for node in partition.nodes)
        fits = profile(tmp_path, partition=partition.name, time="00:01:00")
        paths = [problem.path for problem in refused(fits, ["tokenizer"], partitions)]
        assert paths == ([] if partition.state == "up" else ["site.partition"])
    (problem,) = refused(profile(tmp_path, partition="no-such"), ["tokenizer"], partitions)
    assert problem.path == "site.partition"
    most = max(node.gpus for partition in partitions for node in partition.nodes)
    greedy = profile(tmp_path, partition=partitions[0].name, gpus_per_node=most + 1)
    assert "site.gpus_per_node" in {p.path for p in refused(greedy, ["tokenizer"], partitions)}
