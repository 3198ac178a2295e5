"""The generators' attention: rotations, memory layouts, and the choice of a kernel."""

import builtins
import sys

import pytest
import torch
import torch.nn.functional as F
from fake_xformers import stand_in

from pae_framework.config import LatentShape
from pae_framework.layers import attention_kernel
from pae_generators.attention import SelfAttention
from pae_generators.config import LightningDiTConfig
from pae_generators.lightningdit import LightningDiT
from pae_generators.norms import RMSNorm
from pae_generators.positions import RotaryPositions, rotate

WIDTH, HEADS, GRID = 32, 4, 4


def config(**changes):
    return LightningDiTConfig(width=WIDTH, heads=HEADS, depth=1, patch=1, **changes)


def attention(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SelfAttention(WIDTH, HEADS, config(**changes))


def tokens(batch=2):
    random = torch.Generator().manual_seed(1)
    return torch.randn(batch, GRID**2, WIDTH, generator=random)


# --- rotations ------------------------------------------------------------------------------------


def test_rotation_keeps_lengths_and_products_depend_on_relative_positions():
    """(1, 1) and (2, 3) are as far apart as (0, 0) and (1, 2), and not as (0, 0) and (2, 1)."""
    rope = RotaryPositions(grid=4, head_width=8)
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    table = rope(q)
    turned_q, turned_k = (rotate(u.expand(1, 16, 1, 8), table)[0, :, 0] for u in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(16))
    products = (turned_q @ turned_k.T).view(4, 4, 4, 4)
    torch.testing.assert_close(products[0, 0, 1, 2], products[1, 1, 2, 3])
    assert abs(products[0, 0, 1, 2] - products[0, 0, 2, 1]) > 1e-3


def test_the_first_pair_rotates_one_radian_per_row_and_the_middle_one_per_column():
    """Head of 8: pairs 0, 1 turn with the row by 1 and 10000^-1/2, pairs 2, 3 with the column."""
    x = torch.tensor([1.0, 0.0] * 4).expand(1, 4, 1, 8)
    turned = rotate(x, RotaryPositions(grid=2, head_width=8)(x))[0, :, 0].unflatten(-1, (4, 2))
    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        angles = torch.tensor([row, row / 100, column, column / 100])
        expected = torch.stack([angles.cos(), angles.sin()], dim=-1)
        torch.testing.assert_close(turned[place], expected)


def test_tables_are_stored_in_float32_and_cast_to_the_compute_type():
    rope = RotaryPositions(grid=2, head_width=8)
    assert all(value.dtype == torch.float32 for value in rope.state_dict().values())
    x = torch.zeros(1, 4, 16)
    assert rope(x)[0].dtype == torch.float32
    assert rope(x.bfloat16())[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert rope(x)[0].dtype == torch.bfloat16


def test_queries_and_keys_reach_the_kernel_in_the_type_of_the_values():
    attend = attention(qk_norm=True)
    seen = []
    attend.kernel = lambda q, k, v: seen.extend(u.dtype for u in (q, k, v)) or v
    rope = RotaryPositions(GRID, WIDTH // HEADS)
    with torch.autocast("cpu", torch.bfloat16):
        attend(tokens(), rope(tokens()))
    assert seen == [torch.bfloat16] * 3


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rope", [True, False])
def test_the_kernel_gets_views_not_copies(monkeypatch, rope):
    """The kernel gets views with adjacent channels; unturned, they are the fused projection."""
    attend = attention()
    fused, given, made = [], [], []
    attend.qkv.register_forward_hook(lambda _, __, out: fused.append(out))
    attend.proj.register_forward_pre_hook(lambda _, args: made.append(args[0]))
    sdpa = F.scaled_dot_product_attention

    def watched(q, k, v):
        given.extend((q, k, v))
        made.append(sdpa(q, k, v))
        return made[0]

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    table = RotaryPositions(GRID, WIDTH // HEADS)(tokens()) if rope else None
    attend(tokens(), table)
    storage = fused[0].untyped_storage().data_ptr()
    shared = [u.untyped_storage().data_ptr() == storage for u in given]
    assert shared == ([False, False, True] if rope else [True, True, True])
    assert all(u.shape == (2, HEADS, GRID**2, WIDTH // HEADS) for u in given)
    assert all(u.stride(-1) == 1 for u in given)
    assert made[1].untyped_storage().data_ptr() == made[0].untyped_storage().data_ptr()


@pytest.mark.parametrize("bf16", [False, True])
def test_in_bf16_blocks_get_tokens_with_adjacent_channels(bf16):
    """In float32 on the CPU they keep the convolution's layout, for the bits of earlier results."""
    network = LightningDiT(config(), LatentShape(4, GRID), num_classes=3)
    strides = []
    for part in (network.blocks[0], network.final_layer):
        part.register_forward_pre_hook(lambda _, args: strides.append(args[0].stride()))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        network(torch.randn(2, 4, GRID, GRID), torch.rand(2), torch.tensor([0, 1]))
    channels, across = (1, WIDTH) if bf16 else (GRID**2, 1)
    assert strides == [(GRID**2 * WIDTH, across, channels)] * 2


def test_a_norm_with_its_weight_has_the_bits_of_two_steps():
    norm, x = RMSNorm(WIDTH), tokens().requires_grad_()
    with torch.no_grad():
        norm.weight.normal_(generator=torch.Generator().manual_seed(2))
    both = norm(x), F.rms_norm(x, (WIDTH,), eps=1e-6) * norm.weight
    gradients = [torch.autograd.grad(y, (x, norm.weight), torch.ones_like(y) + x) for y in both]
    assert torch.equal(*both)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


# --- xformers -------------------------------------------------------------------------------------


def test_xformers_equals_sdpa(monkeypatch):
    calls = stand_in(monkeypatch)
    rope = RotaryPositions(GRID, WIDTH // HEADS)(tokens())
    ours, theirs = attention(), attention(attention="xformers")
    torch.testing.assert_close(theirs(tokens(), rope), ours(tokens(), rope))
    assert calls == [(*tokens().shape[:2], HEADS, WIDTH // HEADS)]


def test_sdpa_does_not_import_xformers(monkeypatch):
    real, seen = builtins.__import__, []

    def watched(name, *rest, **more):
        seen.append(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", watched)
    attention()(tokens(), None)
    assert not [name for name in seen if name.startswith("xformers")]
    assert "xformers" not in sys.modules


@pytest.mark.gpu
@torch.no_grad()
def test_xformers_equals_sdpa_in_bfloat16_on_a_gpu():
    """Heads of 72 dimensions as in XL, outputs of the size of 1: equal to 1e-3 on average."""
    pytest.importorskip("xformers")
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 4, 256, 16, 72, generator=random).cuda().bfloat16()
    ours, theirs = (attention_kernel(name)(q, k, v).float() for name in ("sdpa", "xformers"))
    assert (ours - theirs).square().mean().sqrt() < 1e-3
