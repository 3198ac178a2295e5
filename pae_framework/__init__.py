"""The engine of PAE: prior-aligned autoencoders and latent diffusion, as composable experiments.

Importing this package is cheap and never imports torch. Plugin authors import :data:`hookimpl` from
here, config base classes from :mod:`pae_framework.config` and component base classes from
:mod:`pae_framework.contracts`.
"""

from pae_framework.hookspecs import PAE_API, hookimpl

__version__ = "0.1.0"
__all__ = ["PAE_API", "__version__", "hookimpl"]
