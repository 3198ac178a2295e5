"""Seeds: a plain hash, so stable everywhere; different for different uses."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.seeding import (
    Rows,
    derive_seed,
    draw_seed,
    generator,
    on_device,
    rand,
    randn,
    rows_of,
)

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


# --- a batch shared by several processes ----------------------------------------------------------

draws = pytest.mark.parametrize(
    ("ours", "torchs"), [(randn, torch.randn), (rand, torch.rand)], ids=["randn", "rand"]
)


@st.composite
def shared_batches(draw):
    """The size of a batch and the number of processes that share it."""
    total = draw(st.integers(1, 40))
    return total, draw(st.integers(1, min(total, 8)))


def test_ten_rows_among_four_processes():
    rows = [Rows.of(rank, 4, 10) for rank in range(4)]
    assert [(part.start, part.stop) for part in rows] == [(0, 3), (3, 6), (6, 8), (8, 10)]
    assert [part.share for part in rows] == [0.3, 0.3, 0.2, 0.2]


@given(shared_batches())
def test_processes_share_a_batch_exactly_and_evenly(batch):
    total, size = batch
    parts = [Rows.of(rank, size, total) for rank in range(size)]
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(total))
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1
    assert sum(part.share for part in parts) == pytest.approx(1)


@pytest.mark.parametrize(
    "impossible",
    [
        lambda: Rows(2, 2, 4),
        lambda: Rows(3, 5, 4),
        lambda: Rows(-1, 2, 4),
        lambda: Rows.of(2, 2, 8),
        lambda: Rows.of(-1, 2, 8),
        lambda: Rows.of(3, 4, 3),
    ],
)
def test_rows_that_a_batch_does_not_have_are_an_error(impossible):
    with pytest.raises(ValueError, match=r"rows|process"):
        impossible()


@draws
@pytest.mark.parametrize("rows", [None, Rows(0, 4, 4)], ids=["alone", "all rows"])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_one_process_draws_what_torch_draws(ours, torchs, rows, dtype):
    alone = torch.Generator().manual_seed(derive_seed(3, "noise"))
    shared = generator(3, "noise", rows=rows)
    assert type(shared) is torch.Generator
    assert rows_of(shared) is None
    for shape in [(4,), (4, 5, 6), (4, 1)]:
        assert torch.equal(
            ours(shape, shared, dtype=dtype), torchs(shape, generator=alone, dtype=dtype)
        )
    assert draw_seed(shared) == torch.randint(2**63 - 1, (), generator=alone).item()


@draws
@settings(deadline=None, max_examples=50)
@given(shared_batches(), st.integers(-3, 2), st.sampled_from([None, torch.float64]))
def test_a_process_draws_its_rows_of_the_whole_batch(ours, torchs, batch, dim, dtype):
    total, size = batch
    plain = torch.Generator().manual_seed(derive_seed(1, "x"))
    generators = [generator(1, "x", rows=Rows.of(rank, size, total)) for rank in range(size)]
    for _ in range(2):  # later draws too
        shape = [2, 3, 5]
        shape[dim] = total
        whole = torchs(shape, generator=plain, dtype=dtype)
        parts = []
        for rank, own in enumerate(generators):
            shape[dim] = len(Rows.of(rank, size, total))
            parts.append(ours(shape, own, dim=dim, dtype=dtype))
        assert torch.equal(torch.cat(parts, dim), whole)
        seed = int(torch.randint(2**63 - 1, (), generator=plain))
        assert {draw_seed(own) for own in generators} == {seed}


@draws
def test_a_shape_without_the_process_rows_is_an_error(ours, torchs):
    own = generator(0, rows=Rows(0, 3, 8))
    with pytest.raises(ValueError, match=r"\(5, 8\).*5 rows in dimension 0.*3 of the 8"):
        ours((5, 8), own)


def test_a_derived_generator_keeps_the_rows():
    rows = Rows.of(1, 2, 8)
    derived = generator(9, "bottleneck", rows=rows_of(generator(0, rows=rows)))
    whole = torch.randn(8, 2, generator=generator(9, "bottleneck"))
    assert torch.equal(randn((4, 2), derived), whole[4:])


def test_direct_draws_of_torch_differ_between_processes():
    first, second = (generator(0, rows=Rows.of(rank, 2, 8)) for rank in range(2))
    assert not torch.equal(torch.randn(4, generator=first), torch.randn(4, generator=second))
    # They do not move what the processes draw together.
    assert torch.equal(randn((4,), first), torch.randn(8, generator=generator(0))[:4])


# --- on a GPU -------------------------------------------------------------------------------------


@pytest.mark.gpu
@draws
def test_processes_draw_their_rows_on_a_gpu_too(ours, torchs):
    whole = torchs((7, 5), generator=generator(1, device="cuda"), device="cuda")
    rows = [Rows.of(rank, 3, 7) for rank in range(3)]
    parts = [ours((len(own), 5), generator(1, device="cuda", rows=own)) for own in rows]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.gpu
def test_a_seed_is_drawn_without_waiting_for_the_gpu():
    shared = [generator(1, device="cuda", rows=Rows.of(rank, 2, 4)) for rank in range(2)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        seeds = [draw_seed(own) for own in shared for _ in range(2)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
