"""Files of weights: on this machine, or where they can be had. No torch.

Nothing is downloaded unless ``fetch()`` is called: by ``pae fetch``, and at the first use on a
machine that is not offline (``HF_HUB_OFFLINE`` or ``PAE_OFFLINE`` set).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pae_framework.errors import DataError
from pae_framework.files import replacing

FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


class RemoteFile(Protocol):
    """A file of weights that can be downloaded."""

    @property
    def where(self) -> str:
        """Where it is, for people."""

    def cached(self) -> Path | None:
        """Where it lies on this machine, or None. Asks no network."""

    def fetch(self) -> Path:
        """Where it lies on this machine, downloaded if need be.

        Raises:
            OSError: it cannot be had.
        """


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face hub, in that hub's own cache (``HF_HOME``).

    ``revision`` is a commit, a tag or a branch of it; None means ``main``, whatever that holds when
    the file is fetched.
    """

    repository: str
    name: str = "model.safetensors"
    revision: str | None = None

    @property
    def where(self) -> str:
        """``hub:<repository>/<file>``, with ``@<revision>`` where one is pinned."""
        pinned = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.repository}/{self.name}{pinned}"

    def cached(self) -> Path | None:
        """Where it lies on this machine, or None."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, self.name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def fetch(self) -> Path:
        """Where it lies on this machine, downloaded if need be."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repository, self.name, revision=self.revision))
        except OSError:
            raise
        except Exception as error:  # of whichever library carries its downloads
            raise OSError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class UrlFile:
    """A file at an address, kept where torch.hub keeps its own (``TORCH_HOME``).

    ``digest`` is what its SHA-256 begins with. A download that has another, or is shorter than the
    server said, is thrown away; a file that is there is taken as it is.
    """

    url: str
    digest: str = ""

    @property
    def where(self) -> str:
        """The address."""
        return self.url

    @property
    def _place(self) -> Path:
        cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        home = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()
        return home / "hub" / "checkpoints" / self.url.rsplit("/", 1)[-1]

    def cached(self) -> Path | None:
        """Where it lies on this machine, or None."""
        return self._place if self._place.is_file() else None

    def fetch(self) -> Path:
        """Where it lies on this machine, downloaded if need be."""
        if (found := self.cached()) is not None:
            return found
        with replacing(self._place) as aside:
            try:
                digest = _download(self.url, aside)
            except http.client.HTTPException as error:
                raise OSError(f"{type(error).__name__}: {error}") from error
            if not digest.startswith(self.digest):
                raise OSError(f"its SHA-256 is {digest}, not {self.digest}...")
        return self._place


def _download(url: str, path: Path) -> str:
    """Write what is at an address to a file; gives its SHA-256.

    Raises:
        OSError, HTTPException: it cannot be had whole.
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
    """Whether a recipe's ``weights`` name a file rather than a tag of a hub."""
    return weights.endswith(FILE_SUFFIXES) or os.sep in weights


def default_or_file(weights: str) -> str:
    """Refuse a recipe's ``weights`` that mean nothing, where no tags are known.

    Raises:
        ValueError: they are neither ``default`` nor ``none`` nor the name of a file.
    """
    if weights in ("default", "none") or is_file_name(weights):
        return weights
    raise ValueError(
        f"there are no weights {weights!r}; say `default`, `none` or the name of a file, which has "
        f"a folder (./{weights}) or ends in {', '.join(FILE_SUFFIXES)}"
    )


def weights_files(weights: str) -> Mapping[str, Path]:
    """What ``files()`` of a model answers whose key ``weights`` may name one."""
    return {"weights": Path(weights).expanduser()} if is_file_name(weights) else {}


def offline() -> bool:
    """Whether this machine was told not to ask any network."""
    return any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "PAE_OFFLINE")
    )


def missing_weights(weights: str, remote: RemoteFile | None) -> str | None:
    """Say what is not on this machine, and how to get it; None: nothing is missing.

    Args:
        weights: a recipe's ``weights``: ``none``, the name of a file, or anything else for the
            file at ``remote``.
        remote: what the tag stands for; not looked at for ``none`` and files.
    """
    if weights == "none":
        return None
    if is_file_name(weights):
        path = Path(weights).expanduser()
        return None if path.is_file() else f"no such file of weights: {path}"
    assert remote is not None
    if remote.cached() is not None:
        return None
    return f"its weights ({remote.where}) are not in the cache; `pae fetch RECIPE` brings them"


def weights_path(weights: str, remote: RemoteFile | None) -> Path:
    """The file of weights on this machine, downloaded at need where that is allowed.

    Args:
        weights: as in :func:`missing_weights`, but not ``none``.
        remote: what the tag stands for.

    Raises:
        DataError: the file is not there, and cannot be downloaded; says what to do.
    """
    problem = missing_weights(weights, remote)
    if is_file_name(weights):
        if problem:
            raise DataError(problem)
        return Path(weights).expanduser()
    assert remote is not None
    if problem and offline():
        raise DataError(f"{problem} on a machine with network access, into a cache both can read")
    try:
        return remote.fetch()
    except OSError as error:
        raise DataError(
            f"{remote.where} cannot be downloaded here ({type(error).__name__}: {error}); run "
            "`pae fetch RECIPE` on a machine with network access, or name a local file in `weights`"
        ) from error
