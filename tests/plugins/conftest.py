"""Fixtures of tokenizers, for modulators."""

from tokenizer_fakes import build, encoder, images, registry, reproducible  # noqa: F401
