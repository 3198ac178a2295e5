"""The order of training samples: whole epochs, by count, without state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.data.stream import CountStream, positions_of
from pae_framework.errors import DataError

lengths = st.integers(1, 40)
batch_sizes = st.integers(1, 50)


@settings(deadline=None, max_examples=50)
@given(lengths, batch_sizes, st.integers(0, 5), st.booleans())
def test_every_epoch_holds_every_sample_once(length, batch_size, seed, shuffle):
    stream = CountStream(length, batch_size, seed, shuffle)
    steps = -(-3 * length // batch_size)
    drawn = torch.cat([stream.batch(step) for step in range(steps)])[: 3 * length]
    for epoch in drawn.view(3, length):
        assert sorted(epoch.tolist()) == list(range(length))


@settings(deadline=None, max_examples=50)
@given(lengths, batch_sizes, st.lists(st.integers(0, 30), min_size=1, max_size=10))
def test_a_step_does_not_depend_on_earlier_ones(length, batch_size, steps):
    sequential = CountStream(length, batch_size, seed=1)
    batches = [sequential.batch(step) for step in range(31)]
    flips = [sequential.flips(step) for step in range(31)]
    jumping = CountStream(length, batch_size, seed=1)
    for step in steps:
        assert torch.equal(jumping.batch(step), batches[step])
        assert torch.equal(jumping.flips(step), flips[step])


@settings(deadline=None, max_examples=50)
@given(lengths, batch_sizes, batch_sizes)
def test_order_and_flips_do_not_depend_on_the_batch_size(length, one, other):
    def laid_out(size):
        stream = CountStream(length, size, seed=2)
        steps = range(-(-2 * length // size))
        order = torch.cat([stream.batch(step) for step in steps])
        return order[: 2 * length], torch.cat([stream.flips(step) for step in steps])[: 2 * length]

    for a, b in zip(laid_out(one), laid_out(other), strict=True):
        assert torch.equal(a, b)


def test_orders_differ_by_epoch_and_seed():
    stream, other = CountStream(1000, 1000, seed=0), CountStream(1000, 1000, seed=1)
    assert not torch.equal(stream.batch(0), stream.batch(1))
    assert not torch.equal(stream.batch(0), other.batch(0))


def test_without_shuffle_the_order_repeats():
    stream = CountStream(5, 3, seed=0, shuffle=False)
    assert [stream.batch(step).tolist() for step in range(3)] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_flips_have_even_odds_and_depend_on_the_sample():
    length = 4000
    shuffled, plain = CountStream(length, length, 3), CountStream(length, length, 3, shuffle=False)
    share = shuffled.flips(0).float().mean().item()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / length**0.5)
    assert torch.equal(shuffled.flips(0), plain.flips(0)[shuffled.batch(0)])
    assert not torch.equal(plain.flips(0), plain.flips(1))


def test_an_empty_data_set_is_an_error():
    with pytest.raises(DataError, match="empty"):
        CountStream(0, 4, seed=0)


# --- a batch shared by several processes ----------------------------------------------------------


def test_processes_share_each_micro_batch():
    """Ten samples in two micro-batches of five, among three processes: 2, 2 and 1 of each."""
    found = [positions_of(rank, 3, batch_size=10, accumulate=2).tolist() for rank in range(3)]
    assert found == [[0, 1, 5, 6], [2, 3, 7, 8], [4, 9]]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 4), st.integers(0, 3))
def test_micro_batches_of_processes_are_rows_of_those_of_the_batch(accumulate, rows, size, step):
    batch_size, size = accumulate * rows, min(size, rows)
    whole = CountStream(17, batch_size, seed=4)
    read = [
        CountStream(
            17, batch_size, seed=4, positions=positions_of(rank, size, batch_size, accumulate)
        )
        for rank in range(size)
    ]
    for get in (CountStream.batch, CountStream.flips):
        shares = [get(stream, step).chunk(accumulate) for stream in read]
        for index, micro_batch in enumerate(get(whole, step).chunk(accumulate)):
            assert torch.equal(torch.cat([share[index] for share in shares]), micro_batch)


def test_all_positions_are_the_whole_batch():
    whole = CountStream(7, 6, seed=0)
    same = CountStream(7, 6, seed=0, positions=positions_of(0, 1, batch_size=6, accumulate=3))
    assert torch.equal(same.batch(5), whole.batch(5))
    assert torch.equal(same.flips(5), whole.flips(5))


def test_more_processes_than_rows_of_a_micro_batch_is_an_error():
    with pytest.raises(ValueError, match=r"2 rows.* 3 processes"):
        positions_of(0, 3, batch_size=4, accumulate=2)


@given(lengths, batch_sizes, st.integers(0, 30), st.integers(1, 200))
def test_crops_are_places_in_the_image_and_functions_of_the_step(length, batch_size, step, count):
    stream = CountStream(length, batch_size, seed=1)
    offsets = stream.offsets(step, count)
    assert offsets.shape == (batch_size, 2)
    assert 0 <= offsets.min() <= offsets.max() < count
    later = CountStream(length, batch_size, seed=1)
    later.offsets(step + 3, count)
    assert torch.equal(later.offsets(step, count), offsets)


def test_crops_reach_every_place_and_differ_by_epoch_seed_and_direction():
    stream, other = CountStream(2000, 2000, seed=0), CountStream(2000, 2000, seed=1)
    offsets = stream.offsets(0, 4)
    assert torch.bincount(4 * offsets[:, 0] + offsets[:, 1], minlength=16).min() > 80  # of 125
    assert not torch.equal(offsets, stream.offsets(1, 4))
    assert not torch.equal(offsets, other.offsets(0, 4))


def test_processes_share_the_crops_of_a_batch():
    whole = CountStream(20, 12, seed=3).offsets(4, 100)
    shared = [
        CountStream(20, 12, 3, positions=positions_of(rank, 2, 12, 3)).offsets(4, 100)
        for rank in range(2)
    ]
    places = torch.cat([positions_of(rank, 2, 12, 3) for rank in range(2)])
    assert torch.equal(torch.cat(shared), whole[places])
