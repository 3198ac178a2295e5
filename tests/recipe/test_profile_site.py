"""What a Slurm site would refuse of a profile's jobs; fakes of its commands stand for the site."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.errors import Problem
from pae_framework.preflight.site_checks import delayed, refused
from pae_framework.preflight.slurm_site import (
    Association,
    NodeKind,
    Partition,
    Site,
    ask_site,
    read_partitions,
)
from pae_framework.recipe.profile_settings import gpus_in_gres
from pae_framework.recipe.profiles import FoundProfile, Profiles
from pae_framework.system.slurm import SlurmUnknownError

# partition | state | time limit | job size | nodes | CPUs | MB | generic resources | features
SITE = """\
cpu*|up|infinite|1-infinite|10|32|128000|(null)|(null)
gpu|up|2-00:00:00|1-infinite|4|64|512000|gpu:a100:4(S:0-1)|a100,ib
gpu|up|2-00:00:00|1-infinite|2|96|1024000|gpu:h100:8(S:0-1),nvme:1|h100,ib
test|up|30:00|1|1|8|16000|gpu:2|(null)
wide|up|1:00:00|2-4|8|16|64000|(null)|(null)
old|down|1:00:00|1-infinite|3|16|64000|(null)|(null)
closed|drain|1:00:00|1-infinite|3|16|64000|(null)|(null)
"""
# account | partition | QOS
ASSOCIATIONS = """\
vision||normal,high
speech|test|normal
guests||
"""
CONFIG = """\
Configuration data as of 2026-11-29T12:00:00
AccountingStorageEnforce = associations,limits
KillWait                = 30 sec
"""


def profile(tmp_path: Path, **keys: object) -> FoundProfile:
    """A profile named ``site`` with the given keys, each on a line of its own from line 3."""
    file = tmp_path / "profiles.yaml"
    time = {"time": "00:30:00"} | keys
    file.write_text("\n".join(["site:", "  executor: slurm", *(f"  {k}: {time[k]}" for k in time)]))
    return Profiles(file).find("site")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of Slurm that print the texts above; all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name, text in (("sinfo", SITE), ("sacctmgr", ASSOCIATIONS), ("scontrol", CONFIG)):
        (folder / f"{name}.txt").write_text(text)
        fake(folder, name, f"exec /bin/cat {folder}/{name}.txt")
    return folder


def fake(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def site(commands: Path) -> Site:
    return ask_site()


# --- what the site says ---------------------------------------------------------------------------


def test_the_answers_of_the_commands_are_read(site: Site) -> None:
    cpu, gpu, test, wide, old, closed = site.partitions
    assert cpu == Partition("cpu", "up", None, (NodeKind(10, 32, 128000, {}),), default=True)
    assert gpu.minutes == 2 * 24 * 60
    assert gpu.nodes == (
        NodeKind(4, 64, 512000, {"a100": 4}, frozenset({"a100", "ib"})),
        NodeKind(2, 96, 1024000, {"h100": 8}, frozenset({"h100", "ib"})),
    )
    assert (test.minutes, test.nodes[0].gpus, test.fewest, test.most) == (30, {"": 2}, 1, 1)
    assert (wide.fewest, wide.most, gpu.most) == (2, 4, None)
    assert (old.state, old.minutes, closed.state) == ("down", 60, "drain")
    assert site.associations == (
        Association("vision", "", frozenset({"normal", "high"})),
        Association("speech", "test", frozenset({"normal"})),
        Association("guests", "", frozenset()),
    )
    assert site.kill_wait == 30
    assert site.unknown == ()


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu", {"": 1}),
        ("gpu:2", {"": 2}),
        ("gpu:a100", {"a100": 1}),
        ("gpu:a100:4", {"a100": 4}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0),gpu:h100:2(S:1,3)", {"a100": 2, "h100": 2}),
        ("gpu:a100:2,gpu:a100:1", {"a100": 3}),
        ("nvme:1,gpu:8", {"": 8}),
        ("nogpu:3,mps:100", {}),
    ],
)
def test_gpus_are_counted_by_type(gres: str, gpus: dict[str, int]) -> None:
    assert gpus_in_gres(gres) == gpus


@pytest.mark.parametrize("field", range(2, 7))
def test_a_number_that_is_none_is_no_answer(commands: Path, field: int) -> None:
    fields = SITE.splitlines()[0].split("|")
    fields[field] = "many"
    (commands / "sinfo.txt").write_text("|".join(fields))
    if field == 3:  # of all these only the job size may be in a form that is not known
        assert read_partitions()[0].most is None
        return
    with pytest.raises(SlurmUnknownError, match="sinfo"):
        read_partitions()


@pytest.mark.parametrize("command", ["sacctmgr", "scontrol"])
@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", None])
def test_what_a_command_does_not_tell_is_unknown_and_not_guessed(
    commands: Path, tmp_path: Path, command: str, script: str | None
) -> None:
    if script is None:
        (commands / command).unlink()
    else:
        fake(commands, command, script)
    site = ask_site()
    (reason,) = site.unknown
    assert command in reason
    assert len(site.partitions) == 6
    if command == "sacctmgr":
        assert refused(profile(tmp_path, account="nobody"), ["tokenizer"], site) == []
    else:
        assert site.kill_wait is None


@pytest.mark.parametrize("enforced", ["none", "limits", "(null)"])
def test_a_site_that_does_not_enforce_accounts_takes_any(
    commands: Path, tmp_path: Path, enforced: str
) -> None:
    text = CONFIG.replace("associations,limits", enforced)
    (commands / "scontrol.txt").write_text(text)
    assert refused(profile(tmp_path, account="nobody"), ["tokenizer"], ask_site()) == []


# --- what it refuses ------------------------------------------------------------------------------


def refusals(tmp_path: Path, site: Site, **keys: object) -> list[Problem]:
    return refused(profile(tmp_path, **keys), ["tokenizer", "generator"], site)


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
        {"partition": "gpu", "flags": "{gres: 'gpu:h100:8'}"},
        {"partition": "gpu", "flags": "{gres: 'gpu:4,nvme:1'}", "nodes": 6},
        {"partition": "wide", "nodes": 2},
        {"partition": "old"},
        {"account": "vision", "qos": "high"},
        {"account": "Vision", "qos": "HIGH"},
        {"account": "guests", "qos": "any"},
        {"account": "speech", "partition": "test"},
        {"qos": "high"},
    ],
)
def test_what_the_site_has_is_not_refused(
    tmp_path: Path, site: Site, keys: dict[str, object]
) -> None:
    assert refusals(tmp_path, site, **keys) == []


@pytest.mark.parametrize(
    ("keys", "key", "mentions"),
    [
        ({"partition": "gpus"}, "partition", "did you mean 'gpu'"),
        ({"partition": "cpu,nowhere"}, "partition", "'nowhere'"),
        ({"partition": "closed", "nodes": 1}, "partition", "drain"),
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
        ({"partition": "test", "tasks_per_node": 9}, "tasks_per_node", "tasks_per_node=8"),
        ({"partition": "gpu", "flags": "{gres: 'gpu:h10:2'}"}, "flags.gres", "'h100'"),
        ({"partition": "gpu", "flags": "{gres: 'gpu:a100:5'}"}, "flags.gres", "has 4"),
        ({"partition": "gpu", "flags": "{gres: gpu}", "nodes": 7}, "nodes", "has 6"),
        ({"partition": "gpu", "flags": "{gres: 'gpu:h100:1'}", "nodes": 3}, "nodes", "has 2"),
        ({"partition": "test", "nodes": 2}, "nodes", "nodes=1"),
        ({"partition": "wide", "nodes": 5}, "nodes", "nodes=4"),
        ({"partition": "wide"}, "nodes", "nodes=2"),
        ({"account": "visoin"}, "account", "did you mean 'vision'"),
        ({"account": "vision", "qos": "hihg"}, "qos", "did you mean 'high'"),
        ({"account": "speech", "qos": "high", "partition": "test"}, "qos", "one of: normal"),
        ({"account": "speech", "partition": "cpu"}, "partition", "test"),
    ],
)
def test_what_the_site_would_refuse_is_one_problem_at_its_key(
    tmp_path: Path, site: Site, keys: dict[str, object], key: str, mentions: str
) -> None:
    (problem,) = refusals(tmp_path, site, **keys)
    assert problem.path == f"site.{key}"
    assert mentions in f"{problem.message}; {problem.hint}"
    if key in keys:
        text = (tmp_path / "profiles.yaml").read_text()
        line = text.split(f"  {key}:")[0].count("\n") + 1
        assert problem.where.startswith(f"{tmp_path}/profiles.yaml:{line}:")


def test_several_refusals_are_reported_together(tmp_path: Path, site: Site) -> None:
    keys = {"gpus_per_node": 16, "memory": "2TB", "time": "3-00:00:00"}
    found = refusals(tmp_path, site, partition="gpu", **keys)
    assert {problem.path for problem in found} == {"site.gpus_per_node", "site.memory", "site.time"}


def test_resources_of_a_stage_are_refused_at_that_stage(tmp_path: Path, site: Site) -> None:
    stages = "{generator: {gpus_per_node: 9}, encoder: {gpus_per_node: 99}}"
    (problem,) = refusals(tmp_path, site, partition="gpu", stages=stages)
    assert problem.path == "site.stages.generator.gpus_per_node"


def test_a_site_without_a_default_needs_a_partition(commands: Path, tmp_path: Path) -> None:
    (commands / "sinfo.txt").write_text(SITE.replace("*", ""))
    (problem,) = refused(profile(tmp_path), ["tokenizer"], ask_site())
    assert problem.path == "site.partition"
    assert "gpu" in problem.hint


def test_jobs_of_a_partition_that_is_down_wait(tmp_path: Path, site: Site) -> None:
    (problem,) = delayed(profile(tmp_path, partition="old"), ["tokenizer", "generator"], site)
    assert problem.path == "site.partition"
    assert "'old' is down" in problem.message
    assert delayed(profile(tmp_path, partition="old,cpu"), ["tokenizer"], site) == []


@pytest.mark.slurm
def test_a_real_site_is_read(tmp_path: Path) -> None:
    site = ask_site()
    assert site.unknown == ()
    assert site.partitions
    assert site.kill_wait
    for partition in site.partitions:
        assert all(node.count > 0 and node.cpus > 0 for node in partition.nodes)
        fits = profile(tmp_path, partition=partition.name, time="00:01:00")
        assert refused(fits, ["tokenizer"], site) == []
        assert bool(delayed(fits, ["tokenizer"], site)) == (partition.state == "down")
    (problem,) = refused(profile(tmp_path, partition="no-such"), ["tokenizer"], site)
    assert problem.path == "site.partition"
    most = max(sum(node.gpus.values()) for found in site.partitions for node in found.nodes)
    greedy = profile(tmp_path, partition=site.partitions[0].name, gpus_per_node=most + 1)
    assert "site.gpus_per_node" in {p.path for p in refused(greedy, ["tokenizer"], site)}
