"""Parse pages of documentation into code blocks, commands, links and headings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"(?:^<!-- (?P<role>recipe|wrong|error|file)(?: (?P<name>\S+))? -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block with its role, which the comment above it states.

    ``<!-- recipe NAME -->``: a valid recipe. ``<!-- wrong NAME -->``: an invalid recipe; the
    ``<!-- error -->`` block after it is the output of ``pae check``. ``<!-- file PATH -->``: a file
    of the page's example plugin.
    """

    language: str
    role: str
    name: str
    text: str


def pages() -> list[Path]:
    """Every page of documentation in the repository."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def written_pages() -> list[Path]:
    """The pages that are not generated."""
    return [page for page in pages() if page.parent.name != "reference"]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(match["language"], match["role"] or "", match["name"] or "", match["text"])
        for match in _FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[str]:
    """Every line of shell blocks, without comments, with continued lines joined."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = line.partition(" #")[0].strip()
                if words and not words.startswith("#"):
                    yield words


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def build_plugin(page: Path, site: Path) -> Path:
    """Write the page's example plugin into ``site``, as pip would install it."""
    files = {block.name: block.text for block in blocks(page) if block.role == "file"}
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    name, version = project["name"], project["version"]
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    points = project["entry-points"]["pae_framework"]
    lines = ["[pae_framework]", *(f"{point} = {module}" for point, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return site
