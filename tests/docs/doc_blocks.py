"""Parse pages of documentation into code blocks, commands, links and headings."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pae_framework.scaffold.names import Names
from pae_framework.scaffold.plugin_package import all_files

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"(?:^<!-- (?P<role>recipe|wrong|error|file|plugin|edit|tutorial)(?: (?P<name>\S+))? -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block with its role, which the comment above it states.

    ``<!-- recipe NAME -->``: a valid recipe. ``<!-- wrong NAME -->``: an invalid recipe; the
    ``<!-- error -->`` block after it is the output of ``pae check``. ``<!-- file PATH -->``: a file
    of the page's example plugin. ``<!-- plugin PATH -->``: a plugin of one file.
    ``<!-- tutorial -->``: commands of the tutorial, which are run in order; an
    ``<!-- edit PATH -->`` block is a change of a file between them.
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
    """Write the page's example plugin and new plugins into ``site``, as pip would install them."""
    files = {block.name: block.text for block in blocks(page) if block.role == "file"}
    write_files(files, site)
    write_metadata(files["pyproject.toml"], site)
    for line in commands(page):
        if line.startswith("pae new-plugin ") and "--update" not in line:
            files = new_plugin(line)
            write_files({name: text for name, text in files.items() if "/" in name}, site)
            write_metadata(files["pyproject.toml"], site)
    return site


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Write files by their paths in a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def new_plugin(line: str) -> dict[str, str]:
    """The files that a command ``pae new-plugin NAME --kind KIND ...`` writes."""
    _, _, name, *options = shlex.split(line)
    kinds = [kind for option, kind in pairwise(options) if option == "--kind"]
    return all_files(Names(name, tuple(kinds)))


def write_metadata(project_text: str, site: Path) -> None:
    """Write what pip leaves of a package with this pyproject.toml, besides its code."""
    project = tomllib.loads(project_text)["project"]
    name, version = project["name"], project["version"]
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    points = project["entry-points"]["pae_framework"]
    lines = ["[pae_framework]", *(f"{point} = {module}" for point, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def edited(text: str, change: str) -> str:
    """A file after a change in the form of a diff; every line that is not added must be there."""
    before = [line[1:] for line in change.splitlines() if line[:1] != "+"]
    after = [line[1:] for line in change.splitlines() if line[:1] != "-"]
    old, new = "\n".join(before), "\n".join(after)
    assert text.count(old) == 1, f"the change does not fit:\n{old}"
    return text.replace(old, new)
