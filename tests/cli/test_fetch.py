"""``pae fetch``: what is here, what was brought, and what cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pae_framework.config import EncoderConfig
from pae_framework.errors import DataError
from pae_framework.plugins import load_registry
from pae_framework.preflight.download import fetch_at_first_use, fetch_requirements
from pae_framework.preflight.requirements import missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry
from pae_framework.runs.plan import plan
from pae_framework.system.files import write_json
from pae_framework.testing.pytest import Pae

ENCODER = "tokenizer.encoder={use: downloaded, shelf: shelf}"


class DownloadedConfig(EncoderConfig):
    """An encoder whose weights come from a shelf, if they are on it."""

    shelf: str

    def missing(self) -> str | None:
        return None if Path("weights").exists() else "no weights"

    def fetch(self) -> str | None:
        if not Path(self.shelf).exists():
            raise DataError(f"nothing on {self.shelf}")
        Path(self.shelf).rename("weights")
        return f"weights from {self.shelf}"

    def token_grid(self, image_size: int) -> int:
        return image_size // 4

    def token_width(self) -> int:
        return 32


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    registry = load_registry()
    plugin = Plugin("shelf", __name__, "shelf", "1")
    registry.add(
        ComponentSpec(
            "encoder", "downloaded", "absent:x", f"{__name__}:DownloadedConfig", "", plugin
        )
    )
    return registry


def states(
    registry: Registry, *overrides: str, dry_run: bool = False
) -> dict[str, tuple[str, str]]:
    loaded = load_recipe("quickstart", [ENCODER, *overrides], registry)
    return {part.path: (part.state, part.text) for part in fetch_requirements([loaded], dry_run)}


def test_fetch_downloads_once(registry: Registry) -> None:
    Path("shelf").touch()
    assert states(registry, dry_run=True)["tokenizer.encoder"] == ("fetch", "no weights")
    assert Path("shelf").exists()
    assert states(registry)["tokenizer.encoder"] == ("fetched", "weights from shelf")
    assert states(registry)["tokenizer.encoder"] == ("here", "")
    # the perceptual term is active, but can need nothing
    assert not any(path.startswith("tokenizer.reconstruction") for path in states(registry))


def test_failed_download_gives_the_reason(registry: Registry) -> None:
    assert states(registry)["tokenizer.encoder"] == ("missing", "nothing on shelf")


def test_missing_data_is_listed_with_its_folder(registry: Registry) -> None:
    folder = "data.train={use: image_folder, folder: nowhere}"
    state, text = states(registry, folder)["data.train"]
    assert state == "missing"
    assert "nowhere" in text


def test_exit_code_is_1_if_something_is_missing(pae: Pae) -> None:
    assert pae("fetch", "quickstart").ok().out.splitlines()[-1].startswith("quickstart: ")
    nowhere = ["data.train={use: image_folder, folder: nowhere}", "evaluate.manifold.ssc=false"]
    answer = pae("fetch", "quickstart", *nowhere).fails(1)
    assert answer.out.startswith("missing  data.train: no such folder")
    pae("fetch", "quickstart", *nowhere, "--dry-run").ok()


def at_first_use(
    registry: Registry, *overrides: str, unfinished: str | None = None
) -> tuple[list[str], list[str]]:
    """What the start of a run prints, and what is still missing then."""
    loaded = load_recipe("quickstart", [ENCODER, *overrides], registry)
    printed: list[str] = []
    stages_dir = Path("stages")
    for stage in plan(loaded.recipe, registry):
        if unfinished is not None and stage.name != unfinished:
            write_json(stages_dir / stage.folder / "stage.json", {"state": "done"})
    missing = missing_requirements([loaded], stages_dir)
    shutil.rmtree(stages_dir, ignore_errors=True)
    left = fetch_at_first_use([loaded], missing, printed.append)
    return printed, [problem.message for problem in left]


def test_run_downloads_weights_at_first_use(registry: Registry) -> None:
    Path("shelf").touch()
    assert at_first_use(registry) == (["fetching weights for tokenizer.encoder"], [])
    assert at_first_use(registry) == ([], [])


def test_run_downloads_only_what_its_unfinished_stages_need(registry: Registry) -> None:
    Path("shelf").touch()
    assert at_first_use(registry, unfinished="generator") == ([], [])
    assert Path("shelf").exists()
    loaded = load_recipe("quickstart", [ENCODER], registry)
    assert list(fetch_requirements([loaded], dry_run=False, only=["extractor"])) == []
    assert Path("shelf").exists()
    assert at_first_use(registry, unfinished="latents")[0] == [
        "fetching weights for tokenizer.encoder"
    ]


def test_failed_download_stops_the_run_with_the_reason(registry: Registry) -> None:
    assert at_first_use(registry)[1] == ["nothing on shelf"]


def test_nothing_is_downloaded_offline(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("shelf").touch()
    assert at_first_use(registry) == ([], ["no weights"])
    assert Path("shelf").exists()


def test_nothing_is_downloaded_for_a_run_that_cannot_start(registry: Registry) -> None:
    Path("shelf").touch()
    printed, left = at_first_use(registry, "data.train={use: image_folder, folder: nowhere}")
    assert printed == []
    assert len(left) == 2
    assert Path("shelf").exists()
