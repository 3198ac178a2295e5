"""Rules for labels of regularizers and evaluators. No torch."""

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

_TERMS = (*ReconstructionSettings.model_fields, *DISCRIMINATOR_TERMS, ADVERSARIAL)
RESERVED = frozenset((*LOG_COLUMNS, *_TERMS, ADVERSARIAL + FACTOR))
"""Other columns of the tokenizer's log, which a label of a regularizer must not equal."""


def label_problem(label: str, reserved: frozenset[str] = frozenset()) -> str | None:
    """Explain why ``label`` cannot name a log column or folder; None if it can."""
    if not _LABEL.fullmatch(label):
        return "a label must be a lower-case letter followed by letters, digits, '_' or '-'"
    if label in reserved or (reserved and label.endswith(FACTOR)):
        return f"{label!r} is reserved for another column of the log"
    return None
