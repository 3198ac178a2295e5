"""The engine of PAE: prior-aligned autoencoders and latent diffusion, as composable experiments.

Importing this package is cheap and never imports torch. Plugin authors import :data:`hookimpl` from
here, config base classes from :mod:`pae_framework.config` and component base classes from
:mod:`pae_framework.contracts`.
"""

import os

from pae_framework.hookspecs import PAE_API, hookimpl

__version__ = "0.1.0"
__all__ = ["PAE_API", "__version__", "hookimpl"]

# pydantic and torch look for extensions in the metadata of all installed distributions when they
# are first used. One damaged file of any distribution would break every command.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
