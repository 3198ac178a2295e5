"""Which values of a metric compare: those with equal protocols, apart from seeds and names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pae_framework.report.comparing import (
    NOT_STATED,
    are_comparable,
    basis,
    basis_over_seeds,
    differences,
    seed_differences,
)

PROTOCOL = {
    "test_data": {"use": "image_folder", "contents": "1f2e"},
    "image_size": "256 x 256",
    "solver": "heun",
    "guidance_interval": [0.0, 0.9],
    "sample_seed": 0,
    "reference": "/data/ref.npz",
    "reference_digest": "xxh3 aa",
    "reference_protocol": {"crop": "ADM"},
    "reference_count": 50_000,
    "extractor": "small_cnn",
    "extractor_digest": "65cd",
    "extractor_pooling": "mean",
    "extractor_seed": 0,
    "count": 50_000,
}


@pytest.mark.parametrize("key", [k for k in PROTOCOL if not k.endswith("seed")])
def test_one_other_value_makes_values_incomparable_unless_a_digest_identifies_it(key):
    other = {**PROTOCOL, key: "another"}
    named_only = key in ("reference", "reference_protocol", "extractor")
    assert are_comparable(PROTOCOL, other) == named_only
    assert [k.partition(".")[0] for k in differences([[PROTOCOL], [other]])] in (
        ([],) if named_only else ([key], [key, key], [key, key, key])
    )


@pytest.mark.parametrize("key", [k for k in PROTOCOL if not k.endswith(("seed", "_protocol"))])
def test_so_does_a_value_that_one_does_not_state(key):
    lacks = {k: x for k, x in PROTOCOL.items() if k != key}
    named_only = key in ("reference", "extractor")
    assert are_comparable(PROTOCOL, lacks) == named_only
    found = differences([[PROTOCOL], [lacks]])
    assert bool(found) != named_only
    if not named_only and not key.endswith("_digest") and key != "test_data":
        assert found[key][1] == NOT_STATED


def test_without_a_digest_the_name_counts():
    one, other = {"reference": "a.npz", "n": 1}, {"reference": "b.npz", "n": 1}
    assert not are_comparable(one, other)
    assert differences([[one], [other]]) == {"reference": ["a.npz", "b.npz"]}


@pytest.mark.parametrize("key", ["seed", "sample_seed", "evaluation_seed"])
def test_another_seed_is_told_but_compares(key):
    other = {**PROTOCOL, key: 7}
    assert are_comparable(PROTOCOL, other)
    first = str(PROTOCOL.get(key, NOT_STATED))
    assert seed_differences([[PROTOCOL], [other]]) == {key: [first, "7"]}


def test_a_seed_inside_of_the_data_is_no_seed_of_the_run():
    one, other = ({"test_data": {"use": "shapes", "seed": seed}} for seed in (0, 1))
    assert not are_comparable(one, other)


CHOSEN = {"test_images_chosen": "of 50000, at random", "test_images_seed": 0}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CHOSEN, {**CHOSEN, "test_images_seed": 1}),
        ({"reference_protocol": CHOSEN}, {"reference_protocol": {**CHOSEN, "test_images_seed": 1}}),
    ],
    ids=["beside", "inside of the reference"],
)
def test_the_seed_that_chooses_the_test_images_is_a_difference(one, other):
    assert not are_comparable(one, other)
    (texts,) = differences([[one], [other]]).values()
    assert texts == ["0", "1"]
    assert seed_differences([[one], [other]]) == {}
    # Repetitions of one recipe with other seeds are averaged, and each chooses its own.
    assert basis_over_seeds(one) == basis_over_seeds(other) != ()


@pytest.mark.parametrize("nothing", [None, {}, {"sample_seed": 1}])
def test_values_without_a_protocol_compare_with_nothing(nothing):
    assert not are_comparable(nothing, nothing)
    assert not are_comparable(nothing, PROTOCOL)


def test_seeds_of_a_run_have_networks_of_their_own():
    other = {**PROTOCOL, "extractor_digest": "77aa", "extractor_seed": 1, "sample_seed": 1}
    assert not are_comparable(PROTOCOL, other)
    assert basis_over_seeds(PROTOCOL) == basis_over_seeds(other)
    # A network that no seed belongs to is not one that the runs trained.
    pretrained = [
        {k: x for k, x in found.items() if k != "extractor_seed"} for found in (PROTOCOL, other)
    ]
    assert basis_over_seeds(pretrained[0]) != basis_over_seeds(pretrained[1])


def test_columns_of_several_values_differ_by_what_they_hold():
    one, two = ({"extractor_digest": digest, "count": 5} for digest in ("aa", "bb"))
    assert differences([[one, two], [one]]) == {"extractor_digest": ["aa, bb", "aa"]}
    assert differences([[one, two], [one, two]]) == {}


VALUES = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.lists(st.integers()))
PROTOCOLS = st.dictionaries(
    st.sampled_from(["a", "a_digest", "a_protocol", "seed", "b_seed", "b", "test_images_seed"]),
    VALUES,
    max_size=6,
)


@given(PROTOCOLS, PROTOCOLS)
def test_two_compare_exactly_if_nothing_differs(one, other):
    assert are_comparable(one, other) == are_comparable(other, one)
    if basis(one) and basis(other):
        assert are_comparable(one, other) == (differences([[one], [other]]) == {})
