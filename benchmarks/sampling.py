"""Sampling: the cost of guidance, of its interval and of compiled blocks."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.subject import Subject
from benchmarks.timing import Timing, in_turn, repeated
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.sampling import sample_latents
from pae_framework.training.blocks import compile_blocks


@torch.no_grad()
def guidance_interval(subject: Subject, rounds: int, steps: int) -> list[Timing]:
    """Guidance at every step, in the published interval, and none: seconds per batch."""
    network = subject.network().eval()
    labels = subject.data()[1]
    indices = torch.arange(subject.batch)

    def drawing(guidance: Guidance) -> object:
        settings = SampleSettings(
            batch_size=subject.batch, steps=steps, shift=0.4, guidance=guidance
        )
        return lambda: sample_latents(network, labels, indices, settings, 0, subject.latent)

    choices = {
        "guidance at every step": Guidance(scale=2.5),
        "guidance from t = 0.25 on": Guidance(scale=2.5, interval=(0.25, 1.0)),
        "no guidance": Guidance(),
    }
    return in_turn(
        {name: repeated(drawing(choice), 1, subject.device) for name, choice in choices.items()},
        rounds,
    )


@torch.no_grad()
def compiled_sampling(subject: Subject, rounds: int, steps: int) -> list[Timing]:
    """The same batch, sampled with compiled blocks and eagerly; no guidance."""
    labels, indices = subject.data()[1], torch.arange(subject.batch)
    settings = SampleSettings(batch_size=subject.batch, steps=steps, shift=0.4)
    ways = {}
    for name in ("eager", "compiled"):
        network = subject.network().eval()
        if name == "compiled":
            compile_blocks(network)
        ways[name] = repeated(
            partial(sample_latents, network, labels, indices, settings, 0, subject.latent),
            1,
            subject.device,
        )
    return in_turn(ways, rounds)
