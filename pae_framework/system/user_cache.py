"""The user's cache. No torch."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """Its folder, which may not exist; None for a user without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    return home / "pae_framework"
