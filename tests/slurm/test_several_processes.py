"""A run of four processes on two nodes gives the results of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from local_slurm import LocalSlurm
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from pae_framework.testing.pytest import run_process

pytestmark = pytest.mark.slurm

RECIPE = Path(__file__).parents[1] / "guard" / "chain_a.yaml"
TRAINED = ("extractor", "encoder", "tokenizer", "generator")
PLACE = """\
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
export LOCAL_WORLD_SIZE=${SLURM_TASKS_PER_NODE%%(*}
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
exec "$@"
"""


def numbers(results: Any, path: str = "") -> dict[str, float]:
    """The numbers in results, by their path."""
    if isinstance(results, dict):
        return {k: v for key in results for k, v in numbers(results[key], f"{path}/{key}").items()}
    if isinstance(results, list):
        return numbers(dict(enumerate(results)), path)
    return {path: results} if isinstance(results, int | float) else {}


def without_key(bias: Tensor) -> Tensor:
    """The bias of query and value, from that of query, key and value (3D,)."""
    query, _, value = bias.chunk(3)
    return torch.cat((query, value))


def weights(run: Path) -> dict[str, Any]:
    """All finished weights of a run, by file and name.

    The bias of a key changes no attention: Adam moves it by rounding errors alone.
    """
    return {
        f"{stage}/{file.name}/{name}": without_key(tensor) if "qkv.bias" in name else tensor
        for stage in TRAINED
        for file in (run / stage).glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def test_a_chain_on_two_nodes_equals_one_process(slurm: LocalSlurm, tmp_path: Path) -> None:
    command = ("-m", "pae_framework", "run", RECIPE, "--run-dir")
    run_process(*command, "one", cwd=tmp_path, timeout=300).ok()
    tasks = ("srun", "-N2", "-n4", "--overcommit", "--kill-on-bad-exit=1", "--label")
    shell = ("bash", "-c", PLACE, "bash", sys.executable)
    shown = slurm.output(*tasks, *shell, *command, "four", cwd=tmp_path)

    assert {line.split(":")[0] for line in shown.splitlines()} == {"0"}  # only rank 0 talks
    logs = sorted(path.name for path in (tmp_path / "four" / "logs").iterdir())
    assert logs == [f"rank{rank}.log" for rank in range(4)]

    one, four = (weights(tmp_path / name) for name in ("one", "four"))
    assert {name.split("/")[0] for name in one} == {
        "encoder",
        "extractor",
        "tokenizer",
        "generator",
    }
    assert_close(four, one, rtol=0, atol=1e-4)
    one_found, four_found = (
        numbers(json.loads((tmp_path / name / "evaluate" / "results.json").read_bytes()))
        for name in ("one", "four")
    )
    assert len(one_found) > 10
    assert four_found == pytest.approx(one_found, rel=0.05, abs=0.01)
