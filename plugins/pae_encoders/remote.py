"""Where the weights of pretrained encoders can be had. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pae_encoders.families import Family, Variant
from pae_framework.hub import HubFile, RemoteFile


@dataclass(frozen=True)
class EitherFile:
    """Files that hold the same weights: whichever is in the cache is used, the first is fetched."""

    files: tuple[RemoteFile, ...]

    @property
    def where(self) -> str:
        """Where the first is."""
        return self.files[0].where

    def cached(self) -> Path | None:
        """Where one of them lies on this machine, or None."""
        return next((path for file in self.files if (path := file.cached()) is not None), None)

    def fetch(self) -> Path:
        """Where one of them lies on this machine; the first is downloaded if none does."""
        return self.cached() or self.files[0].fetch()


def remote_file(family: Family, variant: Variant, tag: str) -> RemoteFile:
    """The file of a variant's weights: timm's, or open-clip's where that one is in the cache.

    timm's is the smaller: open-clip's holds the text tower too.
    """
    own = HubFile(f"timm/{variant.hub_name(tag)}")
    twins = [alias for alias, name in family.aliases.items() if name == variant.name]
    if not twins:
        return own
    open_clip = (HubFile(f"timm/{alias}", "open_clip_model.safetensors") for alias in twins)
    return EitherFile((own, *open_clip))
