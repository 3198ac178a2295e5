"""Plain lines on a terminal; see :mod:`pae_framework.system.console` for tables and styles.

Text of users, such as paths and labels, is shown as it is: characters that would control the
terminal, or that cannot be encoded, are escaped. ruff rejects ``print`` elsewhere.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with every unprintable character except line breaks and tabs escaped: ``\x1b``.

    Such characters are control and format characters, and bytes of file names that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def print_line(text: str) -> None:
    """Print text on standard output, with :func:`printable` characters."""
    print(printable(text))  # noqa: T201


def _shown(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
