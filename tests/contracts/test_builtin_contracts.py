"""Every component that comes with the framework keeps the contract of its kind."""

from __future__ import annotations

import gzip
import struct
import tarfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchscript_fakes import write_torchscript

from pae_framework.data.latent_dataset import shard_name, write_shard
from pae_framework.plugins import load_registry
from pae_framework.registry import ComponentSpec
from pae_framework.testing import CONTRACTS, check_registration
from pae_framework.testing.kind_contracts import contract_of

UNTRAINED = {"weights": "none", "size": {"width": 24, "depth": 2, "heads": 2, "grid": 3}}
"""A pretrained encoder's form, tiny and without its weights."""

PATCHES = {"channels": 6, "downsampling": 4}
"""Of the files that are written for `torchscript`."""

CONFIGS: dict[str, list[dict[str, Any]]] = {
    # reference -> parameters to check it with; {folder} is filled in
    "dataset:digits": [{}, {"split": "test"}],
    "dataset:idx": [{"folder": "{folder}"}],
    "dataset:image_folder": [{"folder": "{folder}"}],
    "dataset:parquet": [{"folder": "{folder}"}],
    "dataset:shapes": [{"count": 20, "objects": 2}],
    "dataset:webdataset": [{"folder": "{folder}"}],
    "tokenizer:diffusers_vae": [
        {"model": "stabilityai/sd-vae-ft-ema", "weights": "none", "small": True}
    ],
    "tokenizer:torchscript": [
        {"encode": "{folder}/encode.pt", "decode": "{folder}/decode.pt", **PATCHES},
        {"decode": "{folder}/decode.pt", **PATCHES},
    ],
    "tokenizer:latents": [{"folder": "{folder}"}],
    "encoder:tiny_vit": [{"width": 24, "depth": 2, "heads": 2}],
    "encoder:small_cnn": [{"width": 8, "depth": 2}],
    "encoder:ldm_cnn": [{"channels": 32, "multipliers": [1, 1], "blocks": 1, "latent": 4}],
    "encoder:dinov2": [UNTRAINED, {"model": "vit_base_patch14_dinov2", **UNTRAINED}],
    "encoder:dinov3": [UNTRAINED],
    "encoder:mae": [UNTRAINED],
    "encoder:siglip2": [UNTRAINED],
    "encoder:clip": [
        {"model": model, **UNTRAINED}
        for model in ("ViT-B-16", "ViT-L-14-CLIPA", "coca_ViT-L-14", "EVA02-B-16")
    ],
    "encoder:convnextv2": [{"model": "convnextv2_atto", "weights": "none"}],
    "encoder:inception": [{"weights": "none"}],
    "modulator:dam": [
        {"depth": 2},
        {"depth": 1, "fusion": "add", "cross": False},
        {"depth": 1, "fusion": "concat"},
        {"depth": 1, "fusion": "none"},
    ],
    "modulator:finetune": [{}],
    "modulator:none": [{}],
    "bottleneck:sphere": [{"channels": 6}],
    "bottleneck:gaussian": [{"channels": 6}],
    "bottleneck:diagonal_gaussian": [{}],
    "bottleneck:identity": [{"statistics_images": 16}],
    "decoder:vit": [{"width": 16, "depth": 2, "heads": 2, "patch": 4}],
    "decoder:ldm_cnn": [{"channels": 32, "multipliers": [1, 1], "blocks": 1}],
    "discriminator:patchgan": [{"layers": 1, "width": 4}],
    "discriminator:dino": [
        {
            "weights": "none",
            "resolution": 32,
            "width": 24,
            "depth": 2,
            "heads": 2,
            "layers": [0, 1],
        }
    ],
    "regularizer:ssr": [{}, {"reduction": "sum"}],
    "regularizer:scr": [{}, {"level": "pooled"}, {"level": "tokens"}],
    "regularizer:mcr": [{}, {"mode": "single"}],
    "regularizer:kl": [{}, {"reduction": "sum"}],
    "regularizer:vf": [{}, {"distance_margin": 0.0, "cosine_margin": 0.0}],
    "regularizer:diffusion": [{"width": 16, "depth": 1, "heads": 2}],
    "generator:lightningdit": [
        {"width": 16, "depth": 2, "heads": 2, "patch": 1},
        {"width": 16, "depth": 1, "heads": 2, "patch": 2, "qk_norm": True},
        {"width": 16, "depth": 1, "heads": 2, "patch": 2, "mlp": "gelu", "norm": "layer"},
        {"width": 16, "depth": 1, "heads": 2, "patch": 1, "classes": 0, "time": "data_first"},
    ],
    "generator:dit_dh": [
        {
            **{"width": 16, "depth": 1, "heads": 2},
            **{"head_width": 24, "head_depth": 1, "head_heads": 2},
        }
    ],
    "evaluator:reconstruction": [{}, {"weights": "none"}],
    "evaluator:interpolation": [{}, {"neighbors": 3, "weights": "none"}],
    "evaluator:generation": [{}, {"reference": "train"}],
    "evaluator:few_steps": [{}],
    "evaluator:adm": [{"weights": "none"}],
    "evaluator:fidelity": [{"weights": "none"}],
    "evaluator:manifold": [{"images": 6}, {"ssc": False, "images": 6}],
    "tracker:wandb": [{}],
    "tracker:trackio": [{}],
}

REGISTRY = load_registry()
BUILT_IN = [spec for spec in REGISTRY.specs() if spec.plugin.distribution == "pae-framework"]
MODULES = sorted({p.module for p in REGISTRY.plugins if p.distribution == "pae-framework"})


def test_every_component_is_checked() -> None:
    # A new component: give its reference and a tiny config above, and it is checked.
    assert {spec.reference for spec in BUILT_IN} == set(CONFIGS)


@pytest.mark.parametrize("module", MODULES)
def test_registration_modules(module: str) -> None:
    check_registration(module)


SLOW = {"encoder:inception", "tokenizer:diffusers_vae"}
"""Components whose size is fixed and large, or whose package takes seconds to import."""

TESTS_THAT_START = {"test_other_process", "test_compile"}
"""Tests that start a process or the compiler, which takes seconds."""
QUICK = "encoder:small_cnn"
"""The component for which the default suite runs these as well."""


def is_slow(reference: str, number: int, test: str) -> bool:
    """The default suite checks each config, but only the first one for everything."""
    if reference in SLOW:
        return True
    if test in TESTS_THAT_START:
        return reference != QUICK
    return number > 0 and test != "test_contract"


def cases() -> Iterator[Any]:
    for spec in BUILT_IN:
        for number, parameters in enumerate(CONFIGS.get(spec.reference, [])):
            for test in CONTRACTS[spec.kind].names_of_tests():
                marks = [pytest.mark.slow] if is_slow(spec.reference, number, test) else []
                case = f"{spec.reference}-{number}-{test}"
                yield pytest.param(spec, parameters, test, id=case, marks=marks)


@pytest.mark.parametrize(("spec", "parameters", "test"), list(cases()))
@pytest.mark.filterwarnings("ignore:SSIM is left out", "ignore:SSC")
def test_components(
    spec: ComponentSpec, parameters: dict[str, Any], test: str, tmp_path: Path
) -> None:
    if (write := WRITERS.get(spec.name)) is not None:
        write(tmp_path)
        parameters = {
            key: value.format(folder=tmp_path) if isinstance(value, str) else value
            for key, value in parameters.items()
        }
    config = spec.config_class()(**parameters)
    getattr(contract_of(spec.kind, spec.component_class(), config), test)()


def write_idx(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 14, 14), np.uint8)
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.arange(5, dtype=np.uint8) % 2)):
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        path = folder / f"train-{name}-ubyte.gz"
        path.write_bytes(gzip.compress(header + array.tobytes()))


def write_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)
    for number, image in enumerate(pixels):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)


def write_tar(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / f"{number}.png")
            (folder / f"{number}.cls").write_text(str(number % 2))
            for suffix in ("png", "cls"):
                tar.add(folder / f"{number}.{suffix}", f"{number}.{suffix}")


def write_parquet(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    write_images(folder)
    images = [path.read_bytes() for path in sorted(folder.glob("*/*.png"))]
    table = pyarrow.table({"image": images, "label": [0, 0, 0, 1, 1, 1]})
    import_module("pyarrow.parquet").write_table(table, folder / "a.parquet", row_group_size=2)


def write_latents(folder: Path) -> None:
    latents = torch.zeros(2, 6, 4, 4)
    write_shard(folder / shard_name(0, 0), latents, latents, torch.tensor([0, 1]))


WRITERS: dict[str, Callable[[Path], None]] = {
    "idx": write_idx,
    "image_folder": write_images,
    "parquet": write_parquet,
    "webdataset": write_tar,
    "torchscript": write_torchscript,
    "latents": write_latents,
}
