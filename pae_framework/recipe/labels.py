"""Labels of regularizers and evaluators: what they may be, and which are reserved. No torch."""

from __future__ import annotations

import re

from pae_framework.tokenizer.tokenizer_settings import (
    ADVERSARIAL,
    DISCRIMINATOR_TERMS,
    FACTOR,
    ReconstructionSettings,
)
from pae_framework.training.train_settings import LOG_COLUMNS

_LABEL = re.compile(r"[a-z][a-z0-9_-]*")

RESERVED = frozenset(
    (
        *LOG_COLUMNS,
        *ReconstructionSettings.model_fields,
        *DISCRIMINATOR_TERMS,
        ADVERSARIAL,
        ADVERSARIAL + FACTOR,
    )
)
"""Columns of the tokenizer's log beside the regularizers' own: labels no regularizer can have."""


def label_fault(label: str, reserved: frozenset[str] = frozenset()) -> str | None:
    """Say why ``label`` cannot be one, or None: it names a term in logs or a folder."""
    if not _LABEL.fullmatch(label):
        return "a label is a small letter, then small letters, digits, '_' and '-'"
    if label in reserved or (reserved and label.endswith(FACTOR)):
        return f"{label!r} is a name the engine uses itself"
    return None
