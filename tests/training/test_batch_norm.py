"""Batch norm in several processes: that of the whole batch in one.

Each process of a real gloo group computes all cases and writes what it finds; the tests compare.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pae_framework.seeding import Rows
from pae_framework.tokenizer.losses.known_gradient import with_known_gradients
from pae_framework.training.batch_norm import synchronize_batch_norm

TOTAL = 7
"""Rows of the batch: 4 and 3 of two processes, 2, 2, 2 and 1 of four."""


def numbers(*shape: int, seed: int) -> Tensor:
    """Numbers far from 0, with another mean and scale in each channel."""
    x = torch.randn(TOTAL, *shape, generator=torch.Generator().manual_seed(seed))
    channels = torch.arange(1.0, 1 + shape[0]).view(-1, *[1] * (len(shape) - 1))
    return x * channels + 10 * channels


@dataclass(frozen=True)
class Case:
    """A network with batch norm and its inputs (rows, ...)."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    bf16: bool = False
    tolerance: float = 2e-5
    prepare: Callable[[nn.Module], Any] = nn.Module.train


def keep_averages(norm: nn.Module) -> None:
    """As in the discriminator that judges the tokenizer's reconstructions."""
    norm.training, norm.track_running_stats = True, False


CASES = {
    "rows": Case(lambda: nn.BatchNorm1d(3), (3,)),
    "rows without affine": Case(lambda: nn.BatchNorm1d(3, affine=False), (3,)),
    "sequences": Case(lambda: nn.BatchNorm1d(3), (3, 5)),
    "maps": Case(lambda: nn.BatchNorm2d(3), (3, 4, 5)),
    "cumulative averages": Case(lambda: nn.BatchNorm2d(3, momentum=None), (3, 4, 5)),
    "no averages": Case(lambda: nn.BatchNorm2d(3, track_running_stats=False), (3, 4, 5)),
    "kept averages": Case(lambda: nn.BatchNorm2d(3), (3, 4, 5), prepare=keep_averages),
    "two norms": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.Conv2d(4, 2, 2),
            nn.BatchNorm2d(2),
        ),
        (3, 5, 5),
        tolerance=2e-4,
    ),
    "autocast": Case(lambda: nn.BatchNorm2d(3), (3, 4, 5), bf16=True, tolerance=2e-2),
}  # fmt: skip
STEPS = 2
KNOWN = "known gradients"


def built(case: Case) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = case.build()
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0.5, 0.5)
    case.prepare(network)
    return network


def compute(network: nn.Module, case: Case, rows: Rows) -> dict[str, Tensor]:
    """What these rows give in ``STEPS`` steps; the last step's gradients are computed twice."""
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        x = numbers(*case.shape, seed=step)[rows.start : rows.stop].clone().requires_grad_()
        wish = torch.randn(TOTAL, 64, generator=torch.Generator().manual_seed(9))
        wish = wish[rows.start : rows.stop]
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            y = network(x.bfloat16() if case.bf16 else x)
        flat = y.float().flatten(1)
        loss = rows.share * (flat * wish[:, : flat.shape[1]]).sin().sum(dim=1).mean()
        leaves = dict(network.named_parameters())
        once = torch.autograd.grad(loss, x, retain_graph=True)[0]
        gradients = torch.autograd.grad(loss, [x, *leaves.values()])
        assert torch.equal(once, gradients[0])
        found[f"output {step}"], found[f"input gradient {step}"] = y.detach(), gradients[0]
        for name, gradient in zip(leaves, gradients[1:], strict=True):
            found[f"gradient {step} of {name}"] = gradient
    found |= {f"buffer {name}": value for name, value in network.named_buffers()}
    assert y.dtype == (torch.bfloat16 if case.bf16 else torch.float32)
    return found


def known_gradient(network: nn.Module, rows: Rows) -> Tensor:
    """Of images on a way that was computed before the loss was weighted."""
    x = numbers(3, 5, 5, seed=0)[rows.start : rows.stop].clone().requires_grad_()
    value = with_known_gradients(lambda leaf: {"it": network(leaf).sin().mean()}, x, rows.share)
    (gradient,) = torch.autograd.grad(3 * rows.share * value["it"], x)
    return gradient


def work(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=size)
    found = {}
    for name, case in CASES.items():
        network = built(case)
        names = list(network.state_dict())
        synchronize_batch_norm(network)
        synchronize_batch_norm(network)  # once is enough
        assert list(network.state_dict()) == names
        found[name] = compute(network, case, Rows.of(rank, size, TOTAL))
    network = built(CASES["two norms"])
    synchronize_batch_norm(network)
    found[KNOWN] = {"": known_gradient(network, Rows.of(rank, size, TOTAL))}
    norm = built(CASES["rows"]).eval()
    plain = copy.deepcopy(norm)
    synchronize_batch_norm(norm)
    x = numbers(3, seed=0)[: rank + 1]
    if rank == 0:  # no other process takes part
        assert torch.equal(norm(x), plain(x))
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, dict[str, Tensor]]]:
    """What each process finds, by case."""
    size, folder = request.param, tmp_path_factory.mktemp("processes")
    server = multiprocessing.get_context("forkserver")  # imports torch once for all
    server.set_forkserver_preload(["pytest", synchronize_batch_norm.__module__])
    processes = [server.Process(target=work, args=(rank, size, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


@pytest.mark.parametrize("name", CASES)
def test_processes_together_compute_the_norm_of_the_batch(
    shared: list[dict[str, dict[str, Tensor]]], name: str
) -> None:
    case = CASES[name]
    whole = compute(built(case), case, Rows(0, TOTAL, TOTAL))
    assert whole.keys() == shared[0][name].keys()
    for key, expected in whole.items():
        parts = [found[name][key] for found in shared]
        if key.startswith("buffer"):
            assert all(torch.equal(part, parts[0]) for part in parts)
            together = parts[0]
        else:
            by_rows = key.startswith(("output", "input"))
            together = torch.cat(parts) if by_rows else torch.stack(parts).sum(dim=0)
        largest = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(
            together, expected, rtol=0, atol=case.tolerance * largest, msg=f"{key} differs"
        )


def test_a_gradient_that_is_known_before_the_weights_of_the_processes_are_applied(
    shared: list[dict[str, dict[str, Tensor]]],
) -> None:
    together = torch.cat([found[KNOWN][""] for found in shared])
    network, whole = built(CASES["two norms"]), Rows(0, TOTAL, TOTAL)
    x = numbers(3, 5, 5, seed=0).requires_grad_()
    (expected,) = torch.autograd.grad(3 * network(x).sin().mean(), x)
    largest = expected.abs().max().item()
    torch.testing.assert_close(together, expected, rtol=0, atol=2e-4 * largest)
    torch.testing.assert_close(known_gradient(built(CASES["two norms"]), whole), expected)


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_with_one_process_nothing_changes(tmp_path: Path) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3))
    with one_process(tmp_path):
        synchronize_batch_norm(network)
    assert "forward" not in vars(network[0])
