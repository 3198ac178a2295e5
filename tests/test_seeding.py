"""Seeds: a plain hash, so stable everywhere; different for different uses."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.seeding import derive_seed, generator, on_device

parts = st.lists(st.integers() | st.text(max_size=5), min_size=1, max_size=4)


def test_seed_is_a_blake2b_hash_of_the_tagged_parts():
    digest = hashlib.blake2b(b"i1:7s5:order", digest_size=8).digest()
    assert derive_seed(7, "order") == int.from_bytes(digest, "big") // 2


@settings(deadline=None, max_examples=50)
@given(parts)
def test_seed_fits_63_bits(seed_parts):
    assert 0 <= derive_seed(*seed_parts) < 2**63


@settings(deadline=None, max_examples=50)
@given(parts, parts)
def test_different_parts_have_different_seeds(a, b):
    assert (derive_seed(*a) == derive_seed(*b)) == ([*map(repr, a)] == [*map(repr, b)])


@pytest.mark.parametrize(
    ("a", "b"), [((1,), ("1",)), (("ab", "c"), ("a", "bc")), ((1, 23), (12, 3)), ((0,), (0, 0))]
)
def test_parts_do_not_run_into_each_other(a, b):
    assert derive_seed(*a) != derive_seed(*b)


def test_generator_repeats_itself_and_no_other():
    first = torch.rand(8, generator=generator(0, "a"))
    assert torch.equal(first, torch.rand(8, generator=generator(0, "a")))
    assert not torch.equal(first, torch.rand(8, generator=generator(0, "b")))


def test_moving_to_the_cpu_changes_nothing():
    drawn = torch.randn(3, generator=generator(0))
    assert torch.equal(on_device(drawn, torch.device("cpu")), drawn)


@pytest.mark.gpu
def test_moving_to_a_gpu_brings_the_same_numbers():
    drawn = torch.randn(1000, generator=generator(0))
    assert torch.equal(on_device(drawn, torch.device("cuda")).cpu(), drawn)
