"""Precision and recall: ADM's golden numbers, sets with known answers, torch-fidelity's."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch_fidelity.metric_prc import (
    calculate_precision_recall_full,
    calculate_precision_recall_part,
)

from pae_framework.errors import DataError
from pae_framework.metrics import neighbors
from pae_framework.metrics.neighbors import exact, half, precision_recall, squared_radii

GOLDEN = Path(__file__).parent.parent / "golden" / "adm_statistics.safetensors"
BOTH = pytest.mark.parametrize("distance", [exact, half])


def normal(count, width=8, seed=0, scale=1.0):
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbors, "_DISTANCES", 500)


def test_the_adm_evaluators_numbers(small_blocks):
    golden = load_file(GOLDEN)
    samples, reference = golden["in.samples"], golden["in.reference"]
    found = precision_recall(samples, reference, half)
    assert found == pytest.approx((golden["out.precision"].item(), golden["out.recall"].item()))
    # Radii of 8 to 32 are multiples of 1/64 at most; the order of summation changes the last bits.
    for rows, name in ((samples, "out.sample_radii"), (reference, "out.reference_radii")):
        radii = squared_radii(rows, half)
        torch.testing.assert_close(radii, golden[name][:, 0], rtol=0, atol=2 / 64)


@BOTH
def test_the_radius_is_the_distance_to_the_third_nearest_neighbor(distance):
    # From 0: neighbors at 1, 3, 6; from 10: at 4, 7, 9.
    radii = squared_radii(column(0, 1, 3, 6, 10), distance)
    assert radii.tolist() == [36, 25, 9, 25, 81]


@BOTH
def test_points_on_a_line(distance):
    # Balls of radius 3 around 0 and 3, of radius 2 around 1 and 2: together from -3 to 6.
    reference = column(0, 1, 2, 3)
    # The ball of -4 reaches to 90.
    samples = column(-4, -3, 6, 90)
    assert precision_recall(samples, reference, distance) == (0.5, 1.0)


@BOTH
def test_a_wide_reference_and_narrow_samples_have_high_precision_and_low_recall(distance):
    samples, reference = normal(200, scale=0.1), normal(200, seed=1)
    precision, recall = precision_recall(samples, reference, distance)
    assert precision > 0.95
    assert recall < 0.05
    assert precision_recall(reference, samples, distance) == (recall, precision)


@pytest.mark.parametrize("rows", [normal(20), normal(5).repeat(8, 1), torch.ones(6, 8) * 0.3])
def test_identical_sets_are_inside_each_other(rows):
    # Even if images repeat, so that radii are 0.
    assert precision_recall(rows, rows.clone(), exact) == (1, 1)


def test_sets_far_apart_share_nothing():
    assert precision_recall(normal(20), normal(20, seed=1) + 100, exact) == (0, 0)


@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 1000), st.floats(0.3, 3))
def test_agrees_with_torch_fidelity(count, reference_count, seed, scale):
    samples = normal(count, seed=seed, scale=scale).double()
    reference = normal(reference_count, seed=seed + 1).double()
    found = precision_recall(samples, reference, exact)
    for theirs in (calculate_precision_recall_full, calculate_precision_recall_part):
        assert found == pytest.approx(theirs(samples, reference), rel=1e-6)


def test_blocks_do_not_change_the_result(monkeypatch):
    samples, reference = normal(300), normal(150, seed=1, scale=1.2)
    whole = precision_recall(samples, reference, exact)
    monkeypatch.setattr(neighbors, "_DISTANCES", 1000)
    assert precision_recall(samples, reference, exact) == whole


@pytest.mark.parametrize(("count", "reference_count"), [(10, 900), (900, 10), (700, 700)])
def test_never_more_distances_than_a_block_holds(small_blocks, count, reference_count):
    """Of 500, or of one row if the other set is larger than that."""
    sizes = []

    def watched(a, b):
        sizes.append((len(a), len(a) * len(b)))
        return exact(a, b)

    precision_recall(normal(count), normal(reference_count, seed=1), watched)
    assert all(size <= 500 or rows == 1 for rows, size in sizes)
    pairs = 2 * count * reference_count + count**2 + reference_count**2
    assert sum(size for _, size in sizes) == pairs


@BOTH
@pytest.mark.parametrize(("count", "reference_count"), [(0, 9), (1, 9), (2, 9), (9, 3), (9, 0)])
def test_too_few_images_are_refused(distance, count, reference_count):
    with pytest.raises(DataError, match=str(min(count, reference_count))):
        precision_recall(normal(count), normal(reference_count), distance)


@pytest.fixture
def tf32():
    """TF32 is allowed, as `runtime.tf32` allows it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield matmul
    matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.parametrize("fails", [False, True])
def test_distances_never_use_tf32_and_leave_the_setting(tf32, fails):
    seen = []

    def watched(a, b):
        seen.append(tf32.allow_tf32)
        if fails:
            raise RuntimeError("out of memory")
        return exact(a, b)

    with pytest.raises(RuntimeError) if fails else nullcontext():
        precision_recall(normal(20), normal(20, seed=1), watched)
    assert set(seen) == {False}
    assert tf32.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_distances_beyond_float16_are_computed_in_float32():
    rows = column(0, 300, 600, 900, 1200)  # 300^2 is above 65 504
    assert squared_radii(rows, half).tolist() == [900**2, 600**2, 600**2, 600**2, 900**2]


def test_a_large_mean_costs_no_precision():
    # Multiples of 1/64, which float32 holds beside 4096; |x|^2 would be rounded to multiples of 8.
    samples, reference = ((64 * normal(60, seed=seed)).round() / 64 for seed in (0, 1))
    found = precision_recall(samples + 4096, reference + 4096, exact)
    assert found == precision_recall(samples, reference, exact)
