"""Built-in generators. This registration module imports no torch."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_generators(register: Register) -> None:
    """Register lightningdit and dit_dh."""
    register(
        "lightningdit",
        target="pae_generators.lightningdit:LightningDiT",
        config="pae_generators.config:LightningDiTConfig",
        summary="LightningDiT: diffusion transformer with RMSNorm, SwiGLU and rotary positions",
    )
    register(
        "dit_dh",
        target="pae_generators.dit_dh:DiTDH",
        config="pae_generators.config_dh:DiTDHConfig",
        summary="DiT-DH: narrow transformer with a wide head, for latents of many channels (RAE)",
    )
