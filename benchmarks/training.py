"""A training step: training loop vs bare loop, compiled vs eager, our network vs a peer's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.subject import BareLoop, Subject
from benchmarks.timing import Timing, Way, in_turn, now, repeated
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import FlowSettings
from pae_framework.flow.matching import FlowObjective
from pae_framework.system.console import PlainConsole
from pae_framework.training.loop import train
from pae_framework.training.progress import ProgressLine
from pae_framework.training.task import TrainContext, TrainTask


def engine_overhead(subject: Subject, rounds: int, steps: int) -> list[Timing]:
    """A step of the training loop, with logging, compared with the same step in a bare loop."""
    ways = {
        "bare loop": repeated(BareLoop(subject, subject.network()), steps, subject.device),
        "training loop": through_the_engine(subject, subject.network(), steps),
    }
    return in_turn(ways, rounds)


def compilation(subject: Subject, rounds: int, steps: int) -> list[Timing]:
    """The training loop with ``compile: true``, compared with eager."""
    ways = {
        "eager": through_the_engine(subject, subject.network(), steps),
        "compiled": through_the_engine(subject, subject.network(), steps, compile=True),
    }
    return in_turn(ways, rounds)


def against_peer(subject: Subject, rounds: int, steps: int) -> list[Timing]:
    """LightningDiT compared with diffusers' DiT of the same width, depth, heads and tokens.

    Both do a forward pass, a backward pass and a fused AdamW step on a squared error.
    """
    peer = _peer(subject)
    if peer is None:
        return []
    ways = {
        "diffusers DiT": repeated(_Regression(subject, peer), steps, subject.device),
        "LightningDiT": repeated(_Regression(subject, subject.network()), steps, subject.device),
    }
    return in_turn(ways, rounds)


def through_the_engine(subject: Subject, network: Generator, steps: int, **changes: object) -> Way:
    """A way that trains ``steps`` steps with the training loop; the first is not counted."""

    def batches(start: int, stop: int) -> Iterator[tuple[Tensor, ...]]:
        return (subject.data(step) for step in range(start, stop))

    def way() -> float:
        begun: list[float] = []

        def begin_step(step: int) -> None:
            # At the ends only: synchronizing in between would slow down the measured loop.
            if step in (1, steps + 1):
                if subject.device.type == "cuda":
                    torch.cuda.synchronize()
                begun.append(now())

        objective = FlowObjective(network, FlowSettings())
        task = TrainTask(objective, batches, saved=network, begin_step=begin_step)
        with tempfile.TemporaryDirectory() as folder:
            context = TrainContext(Path(folder), subject.device, "benchmark", 0, _silent)
            train(task, subject.settings(steps + 2, **changes), steps + 2, context)
        return (begun[1] - begun[0]) / steps

    return way


class _Regression:
    """Training steps of any network that maps (latents, times, labels) to latents."""

    def __init__(self, subject: Subject, network: nn.Module):
        self.subject, self.network = subject, network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4, fused=True)

    def __call__(self) -> None:
        device = self.subject.device
        latents, labels = (tensor.to(device) for tensor in self.subject.data())
        times = torch.full((len(latents),), 0.5, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.subject.bf16):
            loss = F.mse_loss(self.network(latents, times, labels).float(), latents)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _peer(subject: Subject) -> nn.Module | None:
    """diffusers' DiT, or None if diffusers is not installed."""
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError:
        return None

    size = subject.size

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = DiTTransformer2DModel(
                num_attention_heads=size.heads,
                attention_head_dim=size.width // size.heads,
                in_channels=subject.channels,
                out_channels=subject.channels,
                num_layers=size.depth,
                sample_size=subject.side,
                patch_size=1,
            )

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return self.network(x, timestep=t, class_labels=y).sample

    return Peer().to(subject.device).train()


def _silent(total: int, done: int) -> ProgressLine:
    return ProgressLine("benchmark", total, done, PlainConsole(quiet=True))
