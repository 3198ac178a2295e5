"""The metrics of both conventions: what they are called, what they need, and their protocols."""

import numpy as np
import pytest
import torch
from stand_in import PUBLISHED, ColorNetwork, colors, features, moments

from pae_framework.metrics import inception_score
from pae_framework.metrics.conventions import (
    CONVENTIONS,
    IMAGES,
    SPATIAL_STATISTICS,
    STATISTICS,
    Comparison,
    cautions,
    measure,
    split_available,
)
from pae_framework.metrics.features import Reference
from pae_framework.metrics.inception import WeightsIdentity

BOTH = pytest.mark.parametrize("convention", CONVENTIONS)


def compare(samples, reference, convention, sha256=PUBLISHED):
    network = ColorNetwork(sha256)
    described = {"reference": "made up"}
    comparison = Comparison(
        features(samples), Reference.of_images(features(reference), described), network.logits
    )
    quantities, reasons = split_available(convention, {}, len(samples), len(reference))
    weights = WeightsIdentity(sha256)
    found = list(
        measure(convention, quantities, comparison, weights, {"crop": "none"}, {"samples": "mine"})
    )
    return found, reasons, list(cautions(quantities, comparison, weights))


def test_the_metrics_of_the_adm_evaluator_in_its_order():
    found, reasons, _ = compare(colors(40), colors(50, seed=1), "adm")
    assert [m.label for m in found] == ["IS", "FID", "sFID", "Precision", "Recall"]
    assert [m.name for m in found] == [f"adm/{m.label.lower()}" for m in found]
    assert reasons == {}


def test_the_metrics_of_torch_fidelity():
    found, reasons, _ = compare(colors(40), colors(50, seed=1), "fidelity")
    assert [m.label for m in found] == ["FID", "KID", "IS", "Precision", "Recall"]
    assert [m.label for m in found if m.std is not None] == ["KID", "IS"]
    assert reasons == {}


@BOTH
@pytest.mark.parametrize(("sha256", "words"), [("none", "random"), ("0123456789", "01234567")])
def test_nothing_is_called_fid_with_other_weights(convention, sha256, words):
    found, _, notes = compare(colors(3), colors(50, seed=1), convention, sha256)
    assert found
    for metric in found:
        assert words in metric.label
        assert "FID" not in metric.label
        assert "KID" not in metric.label
        assert words in metric.name
        assert not any(name in metric.name for name in ("fid_", "kid_"))
    for note in notes:
        assert "FID" not in note
        assert "KID" not in note


def test_fid_is_of_pooled_and_sfid_of_spatial_features():
    # One color per image, so both features move by 51 / 255 = 0.2, in three and two channels.
    samples, reference = colors(60, high=200), colors(60, high=200) + 51
    found, *_ = compare(samples, reference, "adm")
    values = {metric.label: metric.value for metric in found}
    assert values["FID"] == pytest.approx(3 * 0.2**2, rel=1e-5)
    assert values["sFID"] == pytest.approx(2 * 0.2**2, rel=1e-5)


@BOTH
def test_identical_sets(convention):
    found, *_ = compare(colors(40), colors(40), convention)
    values = {metric.label: metric.value for metric in found}
    assert values["FID"] == pytest.approx(0, abs=1e-9)
    assert values["Precision"] == values["Recall"] == 1


@BOTH
def test_statistics_alone_give_the_distances(convention):
    reference = moments(colors(50, seed=1))
    gaussian = features(colors(50, seed=1))
    np.testing.assert_allclose(gaussian.pool.mean, reference["mu"], rtol=1e-6)
    np.testing.assert_allclose(gaussian.spatial.covariance, reference["sigma_s"], rtol=1e-5)
    there, reasons = split_available(convention, {IMAGES: "the reference lacks images"}, 40, None)
    labels = {"adm": {"IS", "FID", "sFID"}, "fidelity": {"FID", "IS"}}
    assert {quantity.label for quantity in there} == labels[convention]
    assert set(reasons.values()) == {"the reference lacks images"}


@pytest.mark.parametrize(
    ("part", "lost"),
    [
        (STATISTICS, {"FID"}),
        (SPATIAL_STATISTICS, {"sFID"}),
        (IMAGES, {"Precision", "Recall"}),
    ],
)
def test_a_part_that_a_reference_lacks_costs_only_its_metrics(part, lost):
    there, reasons = split_available("adm", {part: "gone"}, 40, 40)
    assert set(reasons) == lost
    assert {quantity.label for quantity in there} == {
        *("IS", "FID", "sFID", "Precision", "Recall")
    } - lost


@pytest.mark.parametrize(
    ("convention", "count", "reference_count", "lost"),
    [
        ("adm", 1, 50, {"FID", "sFID", "Precision", "Recall"}),
        ("adm", 2, 50, {"Precision", "Recall"}),
        ("adm", 3, 50, {"Precision", "Recall"}),
        ("adm", 4, 4, set()),
        ("adm", 50, 3, {"Precision", "Recall"}),
        ("fidelity", 1, 50, {"FID", "KID", "IS", "Precision", "Recall"}),
        ("fidelity", 9, 50, {"IS"}),
        ("fidelity", 10, 1, {"KID", "Precision", "Recall"}),
        ("fidelity", 10, 4, set()),
    ],
)
def test_too_few_images(convention, count, reference_count, lost):
    there, reasons = split_available(convention, {}, count, reference_count)
    assert set(reasons) == lost
    few = str(count if count < 10 and reference_count >= 4 else reference_count)
    assert all(reason.endswith(few) for reason in reasons.values())
    # What is left can be computed.
    reference = Reference.of_images(features(colors(max(2, reference_count), seed=1)), {})
    comparison = Comparison(features(colors(count)), reference, ColorNetwork().logits)
    found = measure(convention, there, comparison, WeightsIdentity(PUBLISHED), {}, {})
    assert all(np.isfinite(metric.value) for metric in found)


@BOTH
def test_a_protocol_says_what_its_metric_depends_on_and_no_more(convention):
    found, *_ = compare(colors(40), colors(50, seed=1), convention)
    for metric in found:
        protocol = metric.protocol
        assert metric.subject == {"samples": "mine"}
        assert protocol["crop"] == "none"
        assert "samples" not in protocol
        assert protocol["count"] == 40
        assert protocol["extractor_sha256"] == PUBLISHED
        needs_reference = metric.label != "IS"
        assert ("reference" in protocol) == needs_reference
        assert ("reference_count" in protocol) == needs_reference
        assert ("blocks" in protocol) == (metric.label == "IS")
        assert ("neighbors" in protocol) == (metric.label in ("Precision", "Recall"))


def test_images_sorted_by_class_are_named(monkeypatch):
    monkeypatch.setattr(inception_score, "ADM_BLOCK", 10)
    red = np.array([255, 0, 0], np.uint8)
    classes = np.stack([np.roll(red, k) for k in range(3)]).repeat(20, 0)  # 20 of each
    images = classes[:, None, None].repeat(4, 1).repeat(4, 2)
    shuffled = images[np.random.default_rng(0).permutation(60)]
    _, _, notes = compare(images, colors(50), "adm")
    assert [note for note in notes if note.startswith("IS") and "sorted by class" in note]
    _, _, notes = compare(shuffled, colors(50), "adm")
    assert not [note for note in notes if "sorted" in note]
    _, _, notes = compare(images, colors(50), "fidelity")  # it shuffles
    assert not [note for note in notes if "sorted" in note]


def test_fewer_images_than_features_are_named():
    _, _, notes = compare(colors(3), colors(50, seed=1), "adm")
    assert [note.partition(":")[0] for note in notes] == ["FID"]  # 2 spatial features
    assert "3 images" in notes[0]


def test_small_subsets_are_named():
    _, _, notes = compare(colors(40), colors(50, seed=1), "fidelity")
    assert [note.partition(":")[0] for note in notes] == ["KID"]
    assert "40 images" in notes[0]


def test_logits_are_computed_from_pooled_features_in_parts():
    rows = features(colors(2300))
    sizes = []

    def logits(pool):
        sizes.append(len(pool))
        return pool

    comparison = Comparison(rows, Reference(None, None, None, {}), logits)
    assert torch.equal(comparison.logits, rows.rows)
    assert max(sizes) <= 1000
