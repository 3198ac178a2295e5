"""Weights files: local files and downloads. No torch.

Only ``fetch()`` downloads. ``pae fetch`` calls it, and so does the first use of the weights unless
the machine is offline (``HF_HUB_OFFLINE`` or ``PAE_OFFLINE`` is set).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pae_framework.errors import DataError
from pae_framework.system.files import file_problem, replacing

FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
INDEX_SUFFIX = ".index.json"
"""End of the name of an index of several files, as transformers and Diffusers write it."""


class RemoteFile(Protocol):
    """A weights file that can be downloaded."""

    @property
    def where(self) -> str:
        """Its address, for messages."""

    def cached(self) -> Path | None:
        """Its path on this machine, or None; does not access the network."""

    def fetch(self) -> Path:
        """Its path on this machine, after downloading it if necessary.

        Raises:
            OSError: the download failed.
        """


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face hub, in that hub's own cache (``HF_HOME``).

    ``revision`` is a commit, tag or branch; None: ``main`` at the time of the download.
    """

    repository: str
    name: str = "model.safetensors"
    revision: str | None = None

    @property
    def where(self) -> str:
        """``hub:<repository>/<file>``, with ``@<revision>`` if one is pinned."""
        pinned = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.repository}/{self.name}{pinned}"

    def cached(self) -> Path | None:
        """Its path on this machine, or None."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, self.name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def fetch(self) -> Path:
        """Its path on this machine, after downloading it if necessary."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repository, self.name, revision=self.revision))
        except OSError:
            raise
        except Exception as error:  # from the HTTP library of the hub
            raise OSError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class UrlFile:
    """A file at a URL, stored in the cache of torch.hub (``TORCH_HOME``).

    ``digest`` is a prefix of its SHA-256. A download is discarded if its digest differs or it is
    shorter than its ``Content-Length``. A cached file is not checked.
    """

    url: str
    digest: str = ""

    @property
    def where(self) -> str:
        """The URL."""
        return self.url

    @property
    def path(self) -> Path:
        """Where it is stored on this machine."""
        cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        home = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()
        return home / "hub" / "checkpoints" / self.url.rsplit("/", 1)[-1]

    def cached(self) -> Path | None:
        """Its path on this machine, or None."""
        return self.path if self.path.is_file() else None

    def fetch(self) -> Path:
        """Its path on this machine, after downloading it if necessary."""
        if (found := self.cached()) is not None:
            return found
        with replacing(self.path) as temporary:
            try:
                digest = _download(self.url, temporary)
            except http.client.HTTPException as error:
                raise OSError(f"{type(error).__name__}: {error}") from error
            if not digest.startswith(self.digest):
                raise OSError(f"its SHA-256 is {digest}, not {self.digest}...")
        return self.path


@dataclass(frozen=True)
class EitherFile:
    """Files with the same weights: a cached one is used, otherwise the first one is downloaded."""

    files: tuple[RemoteFile, ...]

    @property
    def where(self) -> str:
        """Address of the first file."""
        return self.files[0].where

    def cached(self) -> Path | None:
        """Path of a file on this machine, or None."""
        return next((path for file in self.files if (path := file.cached()) is not None), None)

    def fetch(self) -> Path:
        """Path of a file on this machine; downloads the first that exists if there is none."""
        if (found := self.cached()) is not None:
            return found
        *others, last = self.files
        for file in others:
            with suppress(OSError):
                return file.fetch()
        return last.fetch()


def _download(url: str, path: Path) -> str:
    """Download a URL to a file and return its SHA-256.

    Raises:
        OSError, HTTPException: the download failed or is incomplete.
    """
    digest, count = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:
        while chunk := answer.read(1 << 20):
            count += file.write(chunk)
            digest.update(chunk)
        stated = answer.headers.get("Content-Length")
    if stated and stated.isdigit() and count != int(stated):
        raise OSError(f"the connection ended after {count} of {stated} bytes")
    return digest.hexdigest()


def is_file_name(weights: str) -> bool:
    """Whether ``weights`` of a recipe is a file name rather than a tag of a hub."""
    return weights.endswith((*FILE_SUFFIXES, INDEX_SUFFIX)) or os.sep in weights


def default_or_file(weights: str) -> str:
    """Validate ``weights`` of a component that has no tags.

    Raises:
        ValueError: the value is neither ``default``, ``none`` nor a file name.
    """
    if weights in ("default", "none") or is_file_name(weights):
        return weights
    raise ValueError(
        f"unknown weights {weights!r}; set `weights` to default, none or a file name, with a "
        f"folder (./{weights}) or one of the suffixes {', '.join(FILE_SUFFIXES)}"
    )


def weights_files(weights: str) -> Mapping[str, Path]:
    """The result of ``files()`` for a model whose ``weights`` may be a file name."""
    return {"weights": Path(weights).expanduser()} if is_file_name(weights) else {}


def offline() -> bool:
    """Whether network access is disabled by an environment variable."""
    return any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "PAE_OFFLINE")
    )


def missing_weights(weights: str, remote: RemoteFile | None) -> str | None:
    """Describe missing weights and the remedy; None if nothing is missing.

    Args:
        weights: ``weights`` of a recipe: ``none``, a file name, or any other value for ``remote``.
        remote: the file that a tag refers to; ignored for ``none`` and file names.
    """
    if weights == "none":
        return None
    if is_file_name(weights):
        return file_problem(Path(weights).expanduser(), folder=True)
    assert remote is not None
    if remote.cached() is not None:
        return None
    return f"its weights ({remote.where}) are not in the cache; run `pae fetch RECIPE`"


def weights_path(weights: str, remote: RemoteFile | None) -> Path:
    """Path of the weights file on this machine, after downloading it if necessary and allowed.

    Args:
        weights: as in :func:`missing_weights`, but not ``none``.
        remote: the file that a tag refers to.

    Raises:
        DataError: the file is missing and cannot be downloaded; states the remedy.
    """
    problem = missing_weights(weights, remote)
    if is_file_name(weights):
        if problem:
            raise DataError(problem)
        return Path(weights).expanduser()
    assert remote is not None
    if problem and offline():
        raise DataError(f"{problem} on a machine with network access and a shared cache")
    try:
        return remote.fetch()
    except OSError as error:
        raise DataError(
            f"{remote.where} cannot be downloaded ({type(error).__name__}: {error}); run "
            "`pae fetch RECIPE` on a machine with network access, or set `weights` to a local file"
        ) from error
