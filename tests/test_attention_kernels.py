"""The setting ``attention``: who computes attention, and what is said if it cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import get_args
from unittest.mock import Mock

import fake_xformers
import pytest
import torch
from torch import Tensor

from pae_framework import layers
from pae_framework.build import build_encoder, build_refiner, build_tokenizer
from pae_framework.config import AttentionKernel
from pae_framework.errors import UsageError
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.layers import attention_kernel, require_kernel
from pae_framework.plugins import load_registry
from pae_framework.preflight.machine import Machine
from pae_framework.preflight.requirements import kernels_of, missing_requirements
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import TokenizerSection
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.seeding import seeded

CPU = torch.device("cpu")
USERS = {
    "generator": "generator.attention=xformers",
    "tokenizer.encoder": "tokenizer.encoder={use: mae, weights: none, attention: xformers,"
    " size: {width: 32, depth: 2, heads: 2}, input_size: 128, train: null}",
    "extractor": "extractor={use: dinov3, weights: none, attention: xformers,"
    " size: {width: 32, depth: 2, heads: 2}, train: null}",
    "tokenizer": "tokenizer.attention=xformers",
    "tokenizer.modulator": "tokenizer.modulator.attention=xformers",
    "tokenizer.decoder": "tokenizer.decoder.attention=xformers",
}
KERNELS = get_args(AttentionKernel)


def queries(device: str = "cpu") -> Tensor:
    return torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(0)).to(device)


def section_of(override: str) -> TokenizerSection:
    return load_recipe("fashion_mnist", [override], load_registry()).recipe.tokenizer_section


def test_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_xformers.stand_in(monkeypatch)
    q = queries()
    k, v = q.flip(1), q.roll(1, 2)
    torch.testing.assert_close(
        attention_kernel("xformers")(q, k, v), attention_kernel("sdpa")(q, k, v)
    )
    assert calls == [(2, 5, 3, 8)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_matrix_products_agree_forward_and_backward(dtype: torch.dtype, autocast: bool) -> None:
    found = []
    for name in ("matmul", "sdpa"):
        q = queries().to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            attended = attention_kernel(name)(q, q.flip(1), q.roll(1, 2))
        attended.float().square().sum().backward()
        assert q.grad is not None
        found.append((attended, q.grad))
    # In float32 the two agree to rounding; in bf16 to a few units in the last place of 8 bits.
    exact = dtype == torch.float32 and not autocast
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if exact else {"rtol": 2**-5, "atol": 2**-4}
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours.float(), torchs.float(), **tolerance)


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_xformers.remove(monkeypatch)
    with pytest.raises(UsageError, match=r"pae-framework\[xformers\].*attention=sdpa"):
        attention_kernel("xformers")(queries(), queries(), queries())


def test_a_package_without_a_kernel_for_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_xformers.stand_in(monkeypatch, fake_xformers.without_kernels)
    with pytest.raises(UsageError, match=r"torch\.float32 .*\b8\b.* cpu\b.*attention=sdpa"):
        attention_kernel("xformers")(queries(), queries(), queries())


def test_the_meta_device_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_xformers.remove(monkeypatch)
    q = queries("meta")
    assert attention_kernel("xformers")(q, q, q).shape == q.shape


class Broken(ModuleType):
    """A library that was built for another torch."""

    def __getattr__(self, name: str) -> object:
        raise OSError("undefined symbol: _ZN3c105ErrorC2E")


def fails(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raise RuntimeError("CUDA error: no kernel image is available")


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "missing": fake_xformers.remove,
    "broken": lambda patch: (
        fake_xformers.stand_in(patch),
        patch.setitem(sys.modules, "xformers.ops", Broken("xformers.ops")),
    ),
    "no kernel": lambda patch: fake_xformers.stand_in(patch, fake_xformers.without_kernels),
    "another GPU": lambda patch: fake_xformers.stand_in(patch, fails),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_trying_a_kernel_names_the_setting(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    FAULTS[fault](monkeypatch)
    with pytest.raises(UsageError, match="attention=sdpa"):
        require_kernel("xformers", CPU)


def test_trying_a_kernel_goes_back_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyForward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, q: Tensor) -> Tensor:
            return q.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            raise NotImplementedError("No operator found for `memory_efficient_attention_backward`")

    fake_xformers.stand_in(monkeypatch, lambda q, k, v: OnlyForward.apply(q))
    with pytest.raises(UsageError, match="attention=sdpa"):
        require_kernel("xformers", CPU)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    ("installed", "gpus", "device", "lacks"),
    [
        (False, (1 << 40,), "auto", "pae-framework"),
        (False, (), "cpu", "pae-framework"),
        (True, (), "auto", "GPU"),
        (True, (1 << 40,), "cpu", "GPU"),
        (True, (1 << 40,), "auto", None),
    ],
    ids=str,
)
def test_preflight_names_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    installed: bool,
    gpus: tuple[int, ...],
    device: str,
    lacks: str | None,
) -> None:
    (fake_xformers.stand_in if installed else fake_xformers.remove)(monkeypatch)
    loaded = load_recipe("quickstart", [USERS[user], f"runtime.device={device}"], load_registry())
    found = missing_requirements([loaded], machine=Machine(1 << 40, gpus))
    assert [problem.path for problem in found] == ([f"{user}.attention"] if lacks else [])
    assert all(str(lacks) in problem.message and "sdpa" in problem.message for problem in found)


@pytest.mark.parametrize(
    "override",
    # The small MAE of USERS does not fit quickstart's small decoder.
    sorted(
        {*USERS.values()} - {USERS["tokenizer.encoder"]} | {"tokenizer.encoder.attention=xformers"}
    ),
)
def test_a_smoke_run_needs_no_kernel_of_a_gpu(override: str) -> None:
    loaded = load_recipe("quickstart", [override], load_registry())
    kernels = dict(kernels_of(smoke_recipe(loaded).recipe, list(STAGES)))
    assert kernels
    assert set(kernels.values()) == {"sdpa"}


def test_of_the_kernels_only_matrix_products_change_a_fingerprint() -> None:
    """Of any component: an `attention` that is a number is something else."""
    configs = {spec.config_class() for spec in load_registry().specs()}
    fields = {config: config.model_fields.get("attention") for config in configs}
    found = [c for c, field in fields.items() if field and field.annotation == AttentionKernel]
    assert {"TinyViTConfig", "DAMConfig", "VitDecoderConfig"} <= {c.__name__ for c in found}
    for config in found:
        made = {kernel: config.model_construct(attention=kernel) for kernel in KERNELS}
        hashed = {kernel for kernel in KERNELS if "attention" not in made[kernel].not_hashed}
        assert hashed == {"matmul"}, config


def test_a_tokenizer_without_a_projector_has_no_attention_of_its_own() -> None:
    overrides = ["tokenizer.bottleneck={use: identity}", "tokenizer.regularizers=null"]
    overrides += ["tokenizer.refinement=null", "tokenizer.attention=xformers"]
    loaded = load_recipe("quickstart", overrides, load_registry())
    assert ("tokenizer",) not in dict(kernels_of(loaded.recipe, list(STAGES)))


@pytest.mark.parametrize(
    ("changed", "attentions"),
    [
        ("tokenizer.encoder", 4),  # blocks
        ("tokenizer.modulator", 2),  # self-attention and cross-attention of one block
        ("tokenizer.decoder", 2),  # blocks
        ("tokenizer", 2),  # projector and deprojector
    ],
)
def test_each_part_of_a_tokenizer_attends_with_its_kernel(
    monkeypatch: pytest.MonkeyPatch, changed: str, attentions: int
) -> None:
    """Each attention calls it once; images and gradients agree with those of torch's."""
    calls = fake_xformers.stand_in(monkeypatch)
    products = Mock(wraps=layers._matmul)
    monkeypatch.setattr(layers, "_matmul", products)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = []
    for kernel in ("sdpa", "xformers", "matmul"):
        section = section_of(f"{changed}.attention={kernel}")
        with seeded(0):
            encoder = build_encoder(section.encoder, 32, load_registry())
            tokenizer = build_tokenizer(section, 32, load_registry(), encoder).eval()
        decoded = tokenizer.decode(tokenizer.encode(images).latents)
        found.append((decoded, *torch.autograd.grad(decoded.square().sum(), images)))
    assert len(calls) == products.call_count == attentions
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_the_refinement_attends_with_the_tokenizers_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One attention in the projector, two blocks in the deprojector."""
    calls = fake_xformers.stand_in(monkeypatch)
    section = section_of("tokenizer.attention=xformers")
    encoder = build_encoder(section.encoder, 32, load_registry())
    refiner = build_refiner(section, encoder)
    images = torch.rand(2, 3, 32, 32)
    refiner.loss(encoder(encoder.normalize(images)).tokens, images)
    assert len(calls) == 3


def test_the_pretraining_of_tiny_vit_attends_with_its_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four blocks, and one that predicts the hidden patches."""
    calls = fake_xformers.stand_in(monkeypatch)
    section = section_of("tokenizer.encoder.attention=xformers")
    objective = build_encoder(section.encoder, 32, load_registry()).pretraining(10)
    labels = torch.tensor([3, 7])
    objective.loss(torch.rand(2, 3, 32, 32), labels, torch.Generator().manual_seed(0))
    assert len(calls) == 5


def test_matrix_products_lack_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_xformers.remove(monkeypatch)
    loaded = load_recipe("quickstart", ["generator.attention=matmul"], load_registry())
    assert not missing_requirements([loaded], machine=Machine(1 << 40, ()))


def test_a_run_tries_the_kernel_before_the_first_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_recipe: Path
) -> None:
    """A GPU seems to be there, but the installed package has no kernel for the device."""
    fake_xformers.stand_in(monkeypatch, fake_xformers.without_kernels)
    monkeypatch.setattr("pae_framework.preflight.requirements._on_gpu", lambda *of: True)
    loaded = load_recipe(str(tiny_recipe), [USERS["generator"]], load_registry())
    with pytest.raises(UsageError, match="attention=sdpa"):
        run_recipe(loaded, RunOptions(run_dir=tmp_path / "run"))
    assert not list(tmp_path.glob("run/stages/*/stage.json"))
