"""The engine of PAE: prior-aligned autoencoders and latent diffusion, as composable experiments.

:func:`run` and :func:`open_run` are for notebooks (:mod:`pae_framework.notebook`).

Importing this package is cheap and never imports torch. Plugin authors import :data:`hookimpl` from
here, config base classes from :mod:`pae_framework.config` and component base classes from
:mod:`pae_framework.contracts`.
"""

from importlib import import_module
from typing import Any

from pae_framework.hookspecs import PAE_API, hookimpl

__version__ = "0.1.0"
__all__ = ["PAE_API", "__version__", "hookimpl"]

_OF_NOTEBOOKS = ("Run", "open_run", "run")


def __dir__() -> list[str]:
    return [*__all__, *_OF_NOTEBOOKS]


def __getattr__(name: str) -> Any:
    """What notebooks use is imported when it is used: plugins need none of it."""
    if name in _OF_NOTEBOOKS:
        return getattr(import_module("pae_framework.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
