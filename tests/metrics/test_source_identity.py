"""What the features of a data source's images are cached by."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pae_datasets.config import DigitsConfig, ImageFolderConfig
from pae_framework.evaluation.image_sets import SourceImages
from pae_framework.recipe.components import DataSourceComponent
from pae_framework.system.files import json_digest


def identity(use: str, config) -> str:
    component = DataSourceComponent.model_construct(use=use, config=config)
    return SourceImages("data", component, source=None).identity()


def test_a_source_keeps_the_identity_under_which_earlier_versions_cached_features():
    settings = {"split": "test", "mask_threshold": 0.4}
    wanted = json_digest(["digits", DigitsConfig.version, settings, None])
    assert identity("digits", DigitsConfig(split="test")) == wanted


def test_features_of_other_pixels_are_others(tmp_path: Path):
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (8, 8)).save(tmp_path / "a" / "0.png")
    configs = [
        ImageFolderConfig(folder=str(tmp_path), background=color)
        for color in ("stored", "white", "black")
    ]
    assert len({identity("image_folder", config) for config in configs}) == len(configs)
