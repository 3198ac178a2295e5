"""Files of released PAE tokenizers: what is read, what is refused and why, and the way back."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import tiny_tokenizer as helpers
from torch import Tensor

from pae_framework.build import build_tokenizer
from pae_framework.errors import CheckpointError
from pae_framework.interop.tokenizer_weights import match_state_dict, read_released, released_state
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.yaml_source import parse
from pae_framework.tokenizer.model import ComposedTokenizer


def tokenizer(**changes: object) -> ComposedTokenizer:
    """The tokenizer the helpers' file was made for, with random weights."""
    registry = helpers.registry_with_renamed()
    root, _ = parse(helpers.RECIPE, position=lambda line, column: "here")
    assert root is not None
    values = root.plain()
    values["tokenizer"].update(changes)
    section = Recipe.model_validate(values, context={"registry": registry}).tokenizer
    encoder = helpers.Renamed(helpers.RenamedConfig(), 16)
    return build_tokenizer(section, 16, registry, encoder)


def problems(tensors: dict[str, Tensor], path: Path, **changes: object) -> list[str]:
    """The lines that say why the tensors do not fit."""
    file = read_released(helpers.write(tensors, path / "t.safetensors"))
    with pytest.raises(CheckpointError) as caught:
        match_state_dict(file, tokenizer(**changes))
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path / 't.safetensors'} does not fit:"
    return [line.strip() for line in lines]


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "module._orig_mod.module."])
@pytest.mark.parametrize("name", ["t.pt", "t.safetensors"])
def test_wrapper_prefixes_are_removed_and_the_encoder_is_separated(
    tmp_path: Path, prefix: str, name: str
) -> None:
    tensors = {prefix + key: tensor for key, tensor in helpers.released().items()}
    found = read_released(helpers.write(tensors, tmp_path / name))
    assert helpers.same_bits(found.tokenizer, helpers.tokenizer_part())
    assert set(found.encoder) == {*helpers.NAMES.values(), *helpers.SPLIT}
    assert helpers.same_bits(found.state, helpers.released())


def test_a_file_without_encoder_is_complete(tmp_path: Path) -> None:
    path = helpers.write(helpers.released(with_encoder=False), tmp_path / "t.pt")
    found = match_state_dict(read_released(path), tokenizer())
    assert not found.encoder
    assert helpers.same_bits(found.tokenizer, helpers.tokenizer_part())


def test_a_bare_state_dict_is_read(tmp_path: Path) -> None:
    torch.save(helpers.released(), tmp_path / "t.pt")
    assert helpers.same_bits(read_released(tmp_path / "t.pt").state, helpers.released())


def test_the_average_is_never_read(tmp_path: Path) -> None:
    torch.save({"ema": helpers.released(), "step": 7}, tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match=r"`model`.*`ema`, `step`"):
        read_released(tmp_path / "t.pt")


@torch.no_grad()
def test_the_loaded_tokenizer_computes_the_reference_values(tmp_path: Path) -> None:
    golden, ours = helpers.golden(), tokenizer()
    weights = match_state_dict(
        read_released(helpers.write(helpers.released(), tmp_path / "t.pt")), ours
    )
    assert weights.encoder
    ours.load_state_dict(weights.tokenizer)
    ours.encoder.load_state_dict(weights.encoder)
    latents = ours.encode_features(golden["in.pixels"], golden["in.features"]).latents
    torch.testing.assert_close(latents, golden["out.z"], atol=1e-5, rtol=0)
    decoded = ours.encoder.normalize(ours.decode(golden["out.z"]))
    torch.testing.assert_close(decoded, golden["out.pixels"], atol=1e-4, rtol=0)
    query = helpers.encoder_part()[f"encoder.{helpers.SPLIT[0]}"]
    assert torch.equal(ours.encoder.fused.weight[:32], query)


def test_positions_are_those_of_the_file(tmp_path: Path) -> None:
    tensors = helpers.released()
    tensors["delta_encoder.pos_embed"] = tensors["delta_encoder.pos_embed"] + 0.25
    ours = tokenizer()
    weights = match_state_dict(
        read_released(helpers.write(tensors, tmp_path / "t.pt")), ours
    ).tokenizer
    ours.load_state_dict(weights)
    assert torch.equal(ours.delta_encoder.pos_embed, tensors["delta_encoder.pos_embed"])


def test_half_precision_becomes_the_modules_own_with_the_same_values(tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in helpers.released().items()}
    weights = match_state_dict(
        read_released(helpers.write(tensors, tmp_path / "t.pt")), tokenizer()
    )
    expected = {name: x.bfloat16().float() for name, x in helpers.tokenizer_part().items()}
    assert helpers.same_bits(weights.tokenizer, expected)


def test_names_and_shapes_are_checked_without_numbers(tmp_path: Path) -> None:
    with torch.device("meta"):
        outline = tokenizer()
    found = match_state_dict(
        read_released(helpers.write(helpers.released(), tmp_path / "t.pt")), outline
    )
    assert helpers.same_bits(found.tokenizer, helpers.tokenizer_part())


# --- what is refused ------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    tensors = helpers.released()
    del tensors["decoder.decoder_pos_embed"], tensors["latent_compressor.1.bias"]
    del tensors[f"encoder.{helpers.SPLIT[1]}"]
    tensors["delta_encoder.extra"] = torch.zeros(1)
    tensors["latent_compressor.1.weight"] = torch.zeros(8, 32, 3, 3)
    assert sorted(problems(tensors, tmp_path)) == [
        f"encoder: missing or unknown: {helpers.SPLIT[1]}",
        "tokenizer: 1 of another shape: latent_compressor.1.weight is 8x32x3x3, not 6x32x3x3",
        "tokenizer: 1 unexpected: delta_encoder.extra",
        "tokenizer: 2 missing: latent_compressor.1.bias, decoder.decoder_pos_embed",
    ]


def test_an_encoder_of_another_shape_is_refused(tmp_path: Path) -> None:
    tensors = helpers.released()
    name = "encoder.encoder.embeddings.projection.weight"
    tensors[name] = tensors[name].repeat(1, 1, 2, 2)
    assert problems(tensors, tmp_path) == [
        "encoder: 1 of another shape: embed.weight is 32x3x8x8, not 32x3x4x4"
    ]


def test_a_file_of_another_depth_or_width_is_refused(tmp_path: Path) -> None:
    deeper = problems(helpers.released(), tmp_path, modulator={"use": "dam", "depth": 3})
    assert len(deeper) == 1
    assert re.match(r"tokenizer: \d+ missing: delta_encoder.layers.2", deeper[0])
    decoder = {"use": "vit", "width": 36, "depth": 2, "heads": 3, "mlp": 48, "patch": 4}
    (wider,) = problems(helpers.released(), tmp_path, decoder=decoder)
    assert "decoder.trainable_cls_token is 1x1x24, not 1x1x36" in wider


def test_statistics_of_a_bottleneck_must_be_in_the_file(tmp_path: Path) -> None:
    bottleneck = {"use": "identity"}
    projected = ("latent_compressor", "latent_decompressor")
    plain = {
        name: tensor
        for name, tensor in helpers.released().items()
        if not name.startswith(projected)
    }
    assert problems(plain, tmp_path, bottleneck=bottleneck) == [
        "tokenizer: 2 missing: bottleneck.mean, bottleneck.var"
    ]
    statistics = {"bottleneck.mean": torch.rand(32, 4, 4), "bottleneck.var": torch.rand(32, 4, 4)}
    whole = read_released(helpers.write({**plain, **statistics}, tmp_path / "whole.pt"))
    ours = tokenizer(bottleneck=bottleneck)
    ours.load_state_dict(match_state_dict(whole, ours).tokenizer)
    assert torch.equal(ours.bottleneck.var, statistics["bottleneck.var"])


class _Hostile:
    """Unpickled without restrictions, this makes a folder."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("wrap", [torch.save, lambda content, path: path.write_bytes(content)])
def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path, wrap) -> None:
    mark, path = tmp_path / "mark", tmp_path / "t.pt"
    content = {"model": helpers.released(), "config": _Hostile(mark)}
    wrap(content if wrap is torch.save else pickle.dumps(content, protocol=2), path)
    with pytest.raises(CheckpointError, match="could run any code"):
        read_released(path)
    assert not mark.exists()
    torch.load(path, weights_only=False) if wrap is torch.save else pickle.loads(path.read_bytes())
    assert mark.is_dir()  # the file was hostile indeed


@pytest.mark.parametrize("name", ["t.pt", "t.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = helpers.write(helpers.released(), tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_released(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.integers(0, 1500), st.integers(0, 255), min_size=1, max_size=20))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path: Path, changes: dict[int, int]
) -> None:
    path = tmp_path / "t.pt"
    torch.save({"model": helpers.encoder_part()}, path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    for place, value in changes.items():
        content[place] = value
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        assert read_released(path).state


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.pt"):
        read_released(tmp_path / "nothing.pt")


# --- the way back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("with_encoder", [True, False])
def test_the_state_written_is_the_state_read(tmp_path: Path, with_encoder: bool) -> None:
    ours = tokenizer()
    weights = match_state_dict(
        read_released(helpers.write(helpers.released(), tmp_path / "t.pt")), ours
    )
    assert weights.encoder
    ours.load_state_dict(weights.tokenizer)
    ours.encoder.load_state_dict(weights.encoder)
    assert helpers.same_bits(released_state(ours, with_encoder), helpers.released(with_encoder))


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    tensors = helpers.released()
    name = next(key for key in tensors if key.startswith("decoder."))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    file = read_released(helpers.write(tensors, tmp_path / "t.pt"))
    with pytest.raises(CheckpointError, match=rf"not finite: {re.escape(name)}"):
        match_state_dict(file, tokenizer())
