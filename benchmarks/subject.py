"""The benchmarked network: a LightningDiT, its latents and a bare training loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import FlowSettings
from pae_framework.flow.matching import FlowObjective
from pae_framework.plugins import load_registry
from pae_framework.seeding import generator
from pae_framework.testing.modules import as_if_trained
from pae_framework.training.optimizer import build_optimizer
from pae_framework.training.train_settings import TrainSettings

CLASSES = 1000


@dataclass(frozen=True)
class Size:
    """Size of a transformer."""

    width: int
    depth: int
    heads: int


@dataclass(frozen=True)
class Subject:
    """Sizes of one benchmark."""

    device: torch.device
    preset: str | None
    depth: int
    width: int
    heads: int
    channels: int
    side: int
    batch: int
    bf16: bool

    @property
    def latent(self) -> LatentShape:
        """Shape of one latent."""
        return LatentShape(self.channels, self.side)

    def __str__(self) -> str:
        size = self.preset or f"width {self.width}, depth {self.depth}"
        precision = "bf16" if self.bf16 else "float32"
        tokens = self.side**2
        return f"LightningDiT {size}, {tokens} tokens, batch {self.batch}, {precision}"

    def network(self) -> Generator:
        """A network in train mode whose weights are all nonzero."""
        torch.manual_seed(0)
        spec = load_registry().find("generator", "lightningdit")
        size = {"preset": self.preset} if self.preset else {**asdict(self.size), "patch": 1}
        network = spec.component_class()(spec.config_class()(**size), self.latent, CLASSES)
        return as_if_trained(network).to(self.device).train()

    @property
    def size(self) -> Size:
        """Size of the network, from the preset if there is one."""
        if self.preset is None:
            return Size(self.width, self.depth, self.heads)
        config = load_registry().find("generator", "lightningdit").config_class()
        own = config(preset=self.preset).architecture
        return Size(own.width, own.depth, own.heads)

    def data(self, step: int = 0) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and labels (B,), on the CPU."""
        random = generator(0, "benchmark", step)
        shape = (self.batch, self.channels, self.side, self.side)
        labels = torch.randint(CLASSES, (self.batch,), generator=random)
        return torch.randn(shape, generator=random), labels

    def settings(self, steps: int, **changes: object) -> TrainSettings:
        """Training settings: LightningDiT's optimizer, no EMA."""
        values = {
            "steps": steps,
            "batch_size": self.batch,
            "lr": 2e-4,
            "clip": None,
            "precision": "bf16" if self.bf16 else "float32",
            "schedule": "constant",
            "log_every": 100,
            "checkpoint_every": 10**9,
            **changes,
        }
        return TrainSettings.model_validate(values)


class BareLoop:
    """A bare training step: forward pass, backward pass, fused AdamW."""

    def __init__(self, subject: Subject, network: Generator):
        self.subject = subject
        self.objective = FlowObjective(network, FlowSettings())
        self.optimizer = build_optimizer(network, subject.settings(1))
        self.count = 0

    def __call__(self) -> Tensor:
        """Run one step; return the loss without synchronizing."""
        device = self.subject.device
        batch = tuple(tensor.to(device) for tensor in self.subject.data(self.count))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.subject.bf16):
            loss = self.objective(batch, generator(0, self.count))["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.count += 1
        return loss.detach()
