"""The hooks a plugin may implement: one for each kind of component.

The kinds are those of :mod:`pae_framework.kinds`: datasets, encoders, modulators, bottlenecks,
decoders, discriminators, regularizers, generators and evaluators. A plugin is an importable module
named by an entry point of the group ``pae_framework``. It states the API version it was written for
and registers its components as import strings, so that listing plugins does not import torch::

    from pae_framework import hookimpl

    pae_api = 1


    @hookimpl
    def pae_register_encoders(register):
        register(
            "my-encoder",
            target="my_package.encoder:MyEncoder",  # a pae_framework.contracts.Encoder
            config="my_package.config:MyEncoderConfig",  # a pae_framework.config.EncoderConfig
            summary="What it is, in one line.",
        )
"""

from __future__ import annotations

from typing import Protocol

import pluggy

PAE_API = 1
"""Version of the hooks and contracts; a plugin states the one it was written for as ``pae_api``."""

OLDEST_API = 1
"""The oldest version whose plugins still load. Hooks only gain arguments, which older plugins need
not take; a hook that is removed gives its name to no other."""

PROJECT = "pae_framework"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The argument of a hook; call it once for each component."""

    def __call__(self, name: str, *, target: str, config: str, summary: str) -> None:
        """Register a component.

        Args:
            name: the value of ``use:`` in a recipe; lower case, words joined by ``_`` or ``-``.
            target: import string ``package.module:Class`` of the component.
            config: import string of its config model, in a module that imports no torch.
            summary: one line for ``pae list-plugins``.
        """


@hookspec
def pae_register_datasets(register: Register) -> None:
    """Register data sources: ``config`` is a DataSourceConfig, ``target`` a DataSource."""


@hookspec
def pae_register_encoders(register: Register) -> None:
    """Register encoders: ``config`` is an EncoderConfig, ``target`` an Encoder."""


@hookspec
def pae_register_modulators(register: Register) -> None:
    """Register modulators: ``config`` is a ModulatorConfig, ``target`` a Modulator."""


@hookspec
def pae_register_bottlenecks(register: Register) -> None:
    """Register bottlenecks: ``config`` is a BottleneckConfig, ``target`` a Bottleneck."""


@hookspec
def pae_register_decoders(register: Register) -> None:
    """Register decoders: ``config`` is a DecoderConfig, ``target`` a Decoder."""


@hookspec
def pae_register_discriminators(register: Register) -> None:
    """Register discriminators: ``config`` is a DiscriminatorConfig, ``target`` a Discriminator."""


@hookspec
def pae_register_regularizers(register: Register) -> None:
    """Register regularizers: ``config`` is a RegularizerConfig, ``target`` a Regularizer."""


@hookspec
def pae_register_generators(register: Register) -> None:
    """Register generators: ``config`` is a GeneratorConfig, ``target`` a Generator."""


@hookspec
def pae_register_evaluators(register: Register) -> None:
    """Register evaluators: ``config`` is an EvaluatorConfig, ``target`` an Evaluator."""
