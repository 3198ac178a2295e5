"""Write the pages of docs/reference/ from the code.

::

    python docs/generate.py            write the pages
    python docs/generate.py --check    list outdated pages; exit code 1 if there are any

The pages hold no date, version or path, are the same on every machine, and need no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pages import commands, components, hooks, messages, recipe, schema

FOLDER = Path(__file__).parent / "reference"
NOTICE = "<!-- Written by docs/generate.py from the code. Change the code, then `make docs`. -->"
PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands.page,
    "recipe.md": recipe.page,
    "components.md": components.page,
    "hooks.md": hooks.page,
    "messages.md": messages.page,
}


def main(arguments: list[str]) -> int:
    """Write or check every page; returns the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    written = {FOLDER / name: f"{NOTICE}\n\n{page().strip()}\n" for name, page in PAGES.items()}
    written[FOLDER / schema.NAME] = schema.text()
    old = [path for path, text in written.items() if _read(path) != text]
    if arguments:
        for path in old:
            print(f"{path.name} is outdated; run `make docs`", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(written[path], encoding="utf-8")
        print(f"wrote {path.name}")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
