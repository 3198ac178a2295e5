"""Reads the records in a run's directory, and checks what they contain. No torch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pae_framework.errors import RunError
from pae_framework.system import files


def read_record(path: Path, shape: Any, remedy: str) -> Any:
    """Read a JSON file that a run wrote.

    Args:
        path: the file.
        shape: its type, for pydantic: a model, or a type such as ``list[dict[str, Any]]``. Keys
            that a model does not name are allowed.
        remedy: what to do if the file is damaged, for the message.

    Raises:
        RunError: the file is missing, no JSON in UTF-8, or of another shape.
    """
    text = read_text(path, remedy)
    try:
        value = json.loads(text)
        _adapter(shape).validate_json(text, strict=True)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {_reason(error)}; {remedy}") from error
    return value


def read_text(path: Path, remedy: str) -> str:
    """Read a text file that a run wrote.

    Raises:
        RunError: the file is missing, no regular file, or not UTF-8.
    """
    try:
        return files.read_text(path)
    except FileNotFoundError:
        raise RunError(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: byte {error.start} is not UTF-8; {remedy}") from error


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error})" if error.doc.strip() else "the file is empty"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        return f"{key}: {first['msg']}" if key else first["msg"]
    return str(error)
