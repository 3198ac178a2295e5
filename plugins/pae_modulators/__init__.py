"""Built-in modulators: detail-aware (PAE), a finetuned copy of the encoder, none."""

from __future__ import annotations

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_modulators(register: Register) -> None:
    """Register the built-in modulators."""
    register(
        "dam",
        target="pae_modulators.dam:DetailAwareModulator",
        config="pae_modulators.config:DAMConfig",
        summary="detail-aware modulator: adds pixel detail to the encoder's tokens (PAE)",
    )
    register(
        "finetune",
        target="pae_modulators.finetune:FinetunedEncoder",
        config="pae_modulators.config:FinetuneConfig",
        summary="a trainable copy of the encoder instead of a modulator",
    )
    register(
        "none",
        target="pae_modulators.none:NoModulator",
        config="pae_modulators.config:NoModulatorConfig",
        summary="the encoder's tokens, unchanged (RAE)",
    )
