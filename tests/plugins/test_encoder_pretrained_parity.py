"""Pretrained encoders equal the transformers classes that PAE and RAE use, weight for weight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from layouts.pae_tokenizers import ENCODERS, FULL
from layouts.transformers_encoders import (
    GRID,
    Case,
    every_case,
    images,
    last_hidden_state,
    reference,
    released,
    saved,
)

from pae_encoders import vfm, vfm_config
from pae_encoders.vfm import resize_positions
from pae_framework.errors import CheckpointError

TOLERANCE = 1e-4


@every_case
@pytest.mark.parametrize("grid", [GRID, GRID - 1, GRID + 3], ids=["same", "down", "up"])
def test_tokens_equal_transformers_at_every_grid(case: Case, grid: int, tmp_path: Path) -> None:
    # The default input: 16 px of the image for each token, shown at 14/16 to patches of 14.
    theirs, ours = reference(case), case.encoder(16 * grid)
    ours.load_state_dict(ours.from_released(released(case, theirs, tmp_path)))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in case.statistics)
    pixels = images(2, 16 * grid)

    with torch.no_grad():
        found = ours(ours.normalize(pixels))
    if ours.patch == 14:
        pixels = F.interpolate(pixels, size=14 * grid, mode="bicubic", align_corners=False)
    wanted = last_hidden_state(theirs, (pixels - mean) / std)

    tokens = wanted[:, case.dropped :]
    assert found.tokens.shape == (2, grid**2, 32)
    torch.testing.assert_close(found.tokens, tokens, atol=TOLERANCE, rtol=0)
    pooled = wanted[:, 0] if case.dropped else tokens.mean(dim=1)
    torch.testing.assert_close(found.pooled, pooled, atol=TOLERANCE, rtol=0)


@every_case
def test_an_input_size_of_ones_own(case: Case, tmp_path: Path) -> None:
    theirs = reference(case)
    side = (14 if "DINOv2" in case.family else 16) * 5
    ours = case.encoder(50, input_size=side)
    ours.load_state_dict(ours.from_released(released(case, theirs, tmp_path)))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in case.statistics)
    resized = F.interpolate(images(1, 50), size=side, mode="bicubic", align_corners=False)

    wanted = last_hidden_state(theirs, (resized - mean) / std)[:, case.dropped :]
    with torch.no_grad():
        found = ours(ours.normalize(images(1, 50))).tokens

    assert ours.grid == 5
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


@every_case
def test_what_norms_add_to_variances(case: Case, tmp_path: Path) -> None:
    # Tokens of variance near 1e-6: an epsilon of 1e-5, 1e-6 or 1e-12 is a matter of digits.
    theirs, ours = reference(case, scale=3e-4), case.encoder(16 * GRID)
    ours.load_state_dict(ours.from_released(released(case, theirs, tmp_path)))
    pixels = 0.1 * ours.normalize(images(2, 16 * GRID))

    wanted = last_hidden_state(theirs, pixels)[:, case.dropped :]
    with torch.no_grad():
        found = ours(pixels).tokens

    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    eps = {"DINOv2": 1e-6, "DINOv3": 1e-5, "MAE": 1e-12, "SigLIP2": 1e-6}[case.family]
    assert {n.eps for n in ours.modules() if isinstance(n, torch.nn.LayerNorm)} == {eps}


@every_case
def test_feature_maps_are_the_patch_tokens_of_each_block(case: Case, tmp_path: Path) -> None:
    theirs, ours = reference(case), case.encoder(16 * GRID).requires_grad_(False)
    ours.load_state_dict(ours.from_released(released(case, theirs, tmp_path)))
    pixels = ours.normalize(images(2, 16 * GRID)).requires_grad_()

    maps = list(ours.feature_maps(pixels))

    assert [tuple(x.shape) for x in maps] == [(2, GRID**2, 32)] * 2
    wanted = last_hidden_state(theirs, pixels)[:, case.dropped :]
    torch.testing.assert_close(ours.vit.norm(maps[-1]), wanted, atol=TOLERANCE, rtol=0)
    for x in maps:
        (gradient,) = torch.autograd.grad(x.square().sum(), pixels, retain_graph=True)
        assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()


@every_case
def test_later_blocks_wait_until_they_are_asked_for(case: Case) -> None:
    ours = case.encoder(16 * GRID)
    called = []
    ours.vit.blocks[1].register_forward_pre_hook(lambda *_: called.append(1))

    next(iter(ours.feature_maps(ours.normalize(images(1, 16 * GRID)))))

    assert not called


# --- released tokenizers --------------------------------------------------------------------------


@every_case
def test_the_way_into_a_released_file_and_back_changes_no_bit(case: Case, tmp_path: Path) -> None:
    tensors = released(case, reference(case), tmp_path)
    ours = case.encoder(16 * GRID)
    ours.load_state_dict(ours.from_released(tensors))

    back = ours.to_released()

    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor), name
    if "mask_token" in ours.state_dict():
        assert torch.equal(back["encoder.embeddings.mask_token"], ours.mask_token)


@every_case
def test_released_tensors_that_do_not_fit_are_listed(case: Case, tmp_path: Path) -> None:
    tensors = released(case, reference(case), tmp_path)
    first, second, *_ = tensors
    del tensors[first]
    tensors["encoder.head.extra"] = torch.zeros(2)
    tensors[second] = torch.zeros(1, 7)

    with pytest.raises(CheckpointError) as caught:
        case.encoder(16 * GRID).from_released(tensors)

    message = str(caught.value)
    assert f"1 missing: {first}" in message
    assert "1 unexpected: encoder.head.extra" in message
    assert f"1 of another shape: {second} is 1x7, not " in message
    assert case.model in message


MILLIONS = {"DINOv2": 304.37, "DINOv3": 303.13, "SigLIP2": 427.89, "MAE": 303.30}
"""Weights of each, as PAE's own modules print them at full size."""


@pytest.mark.parametrize("family", MILLIONS)
def test_the_paper_s_models_have_the_released_names_shapes_and_count(family: str) -> None:
    config = getattr(vfm_config, f"{family}Config")(weights="none")
    with torch.device("meta"):
        encoder = getattr(vfm, family)(config, 256)
    found = {f"encoder.{name}": tuple(t.shape) for name, t in encoder.to_released().items()}
    use = family.lower()

    assert encoder.grid == 16
    assert found == ENCODERS[use](FULL[use][1])
    assert sum(t.numel() for t in encoder.to_released().values()) / 1e6 == pytest.approx(
        MILLIONS[family], abs=0.005
    )


# --- files of transformers ------------------------------------------------------------------------


@every_case
def test_a_local_file_of_transformers_is_read_without_its_last_norm(
    case: Case, tmp_path: Path
) -> None:
    theirs = reference(case)
    tensors = released(case, theirs, tmp_path)
    changed = saved(theirs, tmp_path)
    assert any(name.endswith("norm.weight") for name in changed)

    ours = case.encoder(16 * GRID, weights=str(tmp_path / "model.safetensors"))
    ours.load_pretrained()

    assert all(torch.equal(tensors[name], x) for name, x in ours.to_released().items())


# --- positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("antialias", [False, True])
def test_resized_positions_stay_flat_and_keep_their_axes(antialias: bool) -> None:
    # A ramp down the rows and a constant: rows stay alike along columns, constants constant.
    rows = torch.arange(8.0).view(8, 1).expand(8, 8).reshape(1, 64, 1)
    codes = torch.cat([rows, torch.full_like(rows, 3.0)], dim=-1)

    for grid in (4, 12):
        resized = resize_positions(codes, grid, antialias).view(grid, grid, 2)
        assert torch.allclose(resized[..., 1], torch.tensor(3.0))
        assert torch.allclose(resized[..., 0], resized[:, :1, 0].expand(grid, grid))
        assert (resized[:, 0, 0].diff() > 0).all()
        # The middle of a ramp is its mean, 3.5, at every size.
        assert resized[..., 0].mean().item() == pytest.approx(3.5, abs=1e-4)


def test_antialiasing_matters_when_the_grid_shrinks() -> None:
    # From 8 to 3 places per side a place is 8/3 squares wide. Smoothing over that width leaves
    # next to nothing of a chequerboard; bare bicubic reads it at row 0.83, close to a square.
    board = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1).view(1, 64, 1)

    smooth = resize_positions(board, 3, antialias=True).abs().max()
    bare = resize_positions(board, 3, antialias=False).abs().max()

    assert smooth < 0.15
    assert bare > 0.5
    assert resize_positions(board, 8, antialias=True) is board
