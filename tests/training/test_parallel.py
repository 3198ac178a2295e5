"""Sharded weights: parts and whole tensors, averages, checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from real_processes import in_processes
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.seeding import generator
from pae_framework.training.checkpoint import Checkpoints, NetworkState, TrainingState
from pae_framework.training.ema import EMA
from pae_framework.training.optimizer import build_optimizer
from pae_framework.training.parallel import (
    ParallelModule,
    part,
    part_like,
    parts_like,
    sharded_like,
    whole_tensors,
)
from pae_framework.training.parallel import (
    whole as gather,
)
from pae_framework.training.saving import HostCopy
from pae_framework.training.train_settings import OptimizerSettings
from pae_framework.world import ONE_PROCESS, World

SIZE = 3
PARTS = {"seven": [3, 3, 1], "four": [2, 2, 0], "three": [1, 1, 1], "one": [1, 0, 0]}
"""Rows of each weight in each of three processes: the first have the larger parts, as torch cuts
them, and the last may have none."""
ROWS = {name: sum(rows) for name, rows in PARTS.items()}


class Weights(nn.Module):
    """Weights of different lengths; its loss is the mean of their squares."""

    def __init__(self) -> None:
        super().__init__()
        for name, rows in ROWS.items():
            values = torch.randn(rows, 2, generator=generator(1, name))
            self.register_parameter(name, nn.Parameter(values))
        self.register_buffer("buffer", torch.arange(5.0))

    def forward(self, batch: object, generator: object) -> dict[str, Tensor]:
        return {"loss": sum(weight.square().mean() for weight in self.parameters())}


def trained(world: World, steps: int) -> tuple[TrainingState, ParallelModule]:
    """A network after some steps, with its average."""
    module = Weights()
    parallel = ParallelModule(module, world, "fsdp", torch.device("cpu"))
    optimizer = build_optimizer(module, OptimizerSettings(lr=0.1))
    state = TrainingState({"model": NetworkState(module, optimizer)}, EMA(module, 0.5))
    for _ in range(steps):
        parallel((), generator(1))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        state.ema.update()
    return state, parallel


def translate(world: World) -> dict[str, bool]:
    """Facts about parts and whole tensors, by what is claimed."""
    module = Weights()
    whole = {name: value.clone() for name, value in module.state_dict().items()}
    ParallelModule(module, world, "fsdp", torch.device("cpu"))
    sharded = module.state_dict()
    found: dict[str, bool] = {}
    for name, rows in PARTS.items():
        start = sum(rows[: world.rank])
        mine = whole[name][start : start + rows[world.rank]]
        found[f"{name}: the part"] = torch.equal(part(sharded[name]), mine)
        found[f"{name}: a part of a whole"] = torch.equal(
            part(part_like(sharded[name], whole[name])), mine
        )
    gathered = {k: gather(value) for k, value in sharded.items()}
    parts = {k: gather(value) for k, value in parts_like(sharded, whole).items()}
    doubled = {k: gather(sharded_like(sharded[k], 2 * part(sharded[k]))) for k in sharded}
    kept = {*PARTS, "buffer"} if world.is_main else {"buffer"}
    found["only rank 0 keeps what is gathered"] = whole_tensors(sharded, world).keys() == kept
    for name, value in whole.items():
        found[f"{name}: gathered"] = torch.equal(gathered[name], value)
        found[f"{name}: there and back"] = torch.equal(parts[name], value)
        found[f"{name}: of own parts"] = torch.equal(doubled[name], 2 * value)
    scalar = torch.tensor(3.0)
    found["another shape stays"] = part_like(sharded["seven"], scalar) is scalar
    found["an unknown name stays"] = parts_like({}, {"x": scalar})["x"] is scalar
    found["no storage is shared"] = (
        part(part_like(sharded["three"], whole["three"])).untyped_storage().data_ptr()
        != whole["three"].untyped_storage().data_ptr()
    )
    return found


def save(folder: Path, world: World) -> None:
    """A checkpoint of sharded weights."""
    state, _ = trained(world, 3)
    files = HostCopy(torch.device("cpu")).take(state.tensors(), world)
    world.on_main(lambda: Checkpoints(folder / "sharded").save(3, state, files))


def resume(folder: Path, world: World) -> dict[str, dict[str, Tensor]]:
    """What sharded weights are after a checkpoint of one process and two more steps."""
    state, parallel = trained(world, 1)
    assert Checkpoints(folder / "single").restore(state) == 3
    optimizer = state.networks["model"].optimizer
    for _ in range(2):
        parallel((), generator(1))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        state.ema.update()
    return HostCopy(torch.device("cpu")).take(state.tensors(), world)


def all_work(folder: Path, world: World) -> tuple[dict[str, bool], dict[str, dict[str, Tensor]]]:
    found = translate(world)
    save(folder, world)
    return found, resume(folder, world)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    state, _ = trained(ONE_PROCESS, 3)
    Checkpoints(folder / "single").save(3, state)
    return folder


Files = dict[str, dict[str, Tensor]]
Worked = list[tuple[dict[str, bool], Files]]


@pytest.fixture(scope="module")
def worked(folder: Path) -> Worked:
    return in_processes(SIZE, partial(all_work, folder))


def assert_same(
    found: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]
) -> None:
    assert found.keys() == expected.keys()
    for file, tensors in expected.items():
        assert found[file].keys() == tensors.keys()
        for name, value in tensors.items():
            torch.testing.assert_close(found[file][name], value, rtol=1e-6, atol=1e-7)


def test_parts_and_whole_tensors_translate_into_each_other(worked: Worked) -> None:
    for rank, (found, _) in enumerate(worked):
        assert [claim for claim, holds in found.items() if not holds] == [], f"rank {rank}"


def test_one_process_resumes_sharded_weights(worked: Worked, folder: Path) -> None:
    """Weights, averages and the optimizer's state are those of one process."""
    state, _ = trained(ONE_PROCESS, 0)
    assert Checkpoints(folder / "sharded").restore(state) == 3
    expected, _ = trained(ONE_PROCESS, 3)
    assert_same(state.tensors(), expected.tensors())


def test_sharded_weights_resume_those_of_one_process(worked: Worked) -> None:
    expected, _ = trained(ONE_PROCESS, 5)
    _, found = worked[0]
    assert_same(found, expected.tensors())


def test_a_checkpoint_that_a_process_does_not_see_is_an_error(tmp_path: Path) -> None:
    """Another process found it: the folder is not shared by their machines."""
    state, _ = trained(ONE_PROCESS, 0)
    with pytest.raises(CheckpointError, match="step 3 "):
        Checkpoints(tmp_path).restore(state, 3)
