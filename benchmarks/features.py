"""Cached tokens of the frozen encoder, compared with running it in every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.subject import Subject
from benchmarks.timing import Timing, Way, in_turn, repeated
from pae_framework.build import build_encoder, build_objective, build_refiner, build_tokenizer
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.seeding import generator
from pae_framework.tokenizer.refinement import RefinementObjective
from pae_framework.training.optimizer import build_optimizer
from pae_framework.training.train_settings import TrainSettings


def cached(subject: Subject, rounds: int, steps: int) -> list[Timing]:
    """Steps of tokenizer and refinement at the sizes of ``fashion_mnist``, without loading data.

    Each of both is compared with itself. The tokenizer has all terms of the recipe; its perceptual
    term runs the encoder in either case. The second pair is without that term.
    """
    found = []
    for name, changes in (
        ("tokenizer", ()),
        ("tokenizer without perceptual term", ("tokenizer.reconstruction.perceptual.weight=0",)),
    ):
        found += _pair(subject, rounds, steps, name, _tokenizer(*changes))
    return found + _pair(subject, rounds, steps, "refinement", _refinement)


Built = tuple[nn.Module, nn.Module, TrainSettings, int]
"""The objective, the frozen encoder, settings of the training, side of the images."""


def _tokenizer(*changes: str) -> Callable[[], Built]:
    def build() -> Built:
        loaded = load_recipe("fashion_mnist", changes, load_registry())
        section, size = loaded.recipe.tokenizer, loaded.recipe.data.image_size
        encoder = build_encoder(section.encoder, size, loaded.registry)
        tokenizer = build_tokenizer(section, size, loaded.registry, encoder)
        refiner = build_refiner(section, encoder)
        objective = build_objective(tokenizer, section, loaded.registry, refiner)
        return objective, encoder, section.train, size

    return build


def _refinement() -> Built:
    loaded = load_recipe("fashion_mnist", (), load_registry())
    section, size = loaded.recipe.tokenizer, loaded.recipe.data.image_size
    assert section.refinement is not None
    encoder = build_encoder(section.encoder, size, loaded.registry)
    refiner = build_refiner(section, encoder)
    return RefinementObjective(refiner, encoder), encoder, section.refinement.train, size


def _pair(
    subject: Subject, rounds: int, steps: int, name: str, build: Callable[[], Built]
) -> list[Timing]:
    ways: dict[str, Way] = {}
    for kind in ("encoder in every step", "cached tokens"):
        step = _Step(subject, *build(), tokens=kind == "cached tokens")
        ways[f"{name}: {kind}"] = repeated(step, steps, subject.device)
    return in_turn(ways, rounds)


class _Step:
    """Forward pass, backward pass and AdamW, always on the same images."""

    def __init__(
        self,
        subject: Subject,
        objective: nn.Module,
        encoder: nn.Module,
        settings: TrainSettings,
        size: int,
        tokens: bool,
    ):
        self.objective = objective.train().to(subject.device)
        self.optimizer = build_optimizer(objective, settings)
        images = torch.rand((subject.batch, 3, size, size), generator=generator(0, "images"))
        self.batch: tuple[Tensor, ...] = (images.to(subject.device), torch.zeros(subject.batch))
        if tokens:
            with torch.no_grad():
                found = encoder(encoder.normalize(self.batch[0])).tokens
            self.batch = (*self.batch, found)
        self.bf16, self.device = subject.bf16, subject.device

    def __call__(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.objective(self.batch, generator(0, "step"))
        terms["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
