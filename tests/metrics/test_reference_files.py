"""Reference files of the ADM evaluator, of pytorch-fid and of our own: read, written, refused."""

import json

import numpy as np
import pytest
import torch
from stand_in import PUBLISHED, ColorNetwork, colors, features, moments, protocol

from pae_framework.data.npz import NpzImages
from pae_framework.errors import DataError
from pae_framework.metrics.conventions import IMAGES, SPATIAL_STATISTICS, STATISTICS
from pae_framework.metrics.inception import WeightsIdentity
from pae_framework.metrics.reference_files import ReferenceFile, write_reference

OURS = WeightsIdentity(PUBLISHED)
RANDOM = WeightsIdentity("none")
ALL = {STATISTICS, SPATIAL_STATISTICS, IMAGES}
WIDTHS = ColorNetwork.widths


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def of_images(images):
    return features(images.read(range(len(images))).permute(0, 2, 3, 1).numpy())


def never(images):
    raise AssertionError("the images are not needed")


def test_a_file_of_the_adm_evaluator(tmp_path):
    whole, ten = colors(60), colors(10, seed=1)
    path = saved(tmp_path / "r.npz", arr_0=ten, **moments(whole), mu_clip=np.zeros(4))
    file = ReferenceFile(path)
    assert file.missing(OURS) == {}
    reference = file.load(ALL, WIDTHS, of_images)
    np.testing.assert_allclose(reference.pool.mean, moments(whole)["mu"])
    np.testing.assert_allclose(reference.spatial.covariance, moments(whole)["sigma_s"])
    # Statistics are of the whole set, not of the images in the file.
    np.testing.assert_allclose(reference.rows, ten.mean((1, 2)) / 255, rtol=1e-6)
    assert reference.count is None
    assert reference.protocol["reference"] == str(path)
    assert reference.protocol["reference_digest"].startswith("xxh3 ")


def test_only_what_is_needed_is_read(tmp_path):
    path = saved(tmp_path / "r.npz", arr_0=colors(10), **moments(colors(60)))
    reference = ReferenceFile(path).load({STATISTICS, None}, WIDTHS, never)
    assert reference.pool is not None
    assert reference.spatial is None
    assert reference.rows is None


@pytest.mark.parametrize(
    ("names", "lacks"),
    [
        (["mu", "sigma"], {SPATIAL_STATISTICS, IMAGES}),  # pytorch-fid
        (["mu", "sigma", "mu_s", "sigma_s"], {IMAGES}),
        (["mu", "sigma", "mu_s"], {SPATIAL_STATISTICS, IMAGES}),
        (["mu", "sigma", "arr_0"], {SPATIAL_STATISTICS}),
    ],
)
def test_missing_parts_are_known_from_the_headers(tmp_path, names, lacks):
    arrays = {"arr_0": colors(10), **moments(colors(60))}
    path = saved(tmp_path / "r.npz", **{name: arrays[name] for name in names})
    missing = ReferenceFile(path).missing(OURS)
    assert set(missing) == lacks
    assert all(part in reason for part, reason in missing.items())


def test_statistics_of_a_file_with_images_only_are_those_of_the_images(tmp_path):
    file = ReferenceFile(saved(tmp_path / "r.npz", arr_0=colors(30)))
    assert not file.has_statistics
    assert file.missing(OURS) == file.missing(RANDOM) == {}
    reference = file.load(ALL, WIDTHS, of_images)
    np.testing.assert_allclose(reference.pool.mean, moments(colors(30))["mu"], rtol=1e-6)
    assert reference.count == 30


def test_statistics_in_features_of_other_weights_are_not_compared(tmp_path):
    arrays = {"arr_0": colors(10), **moments(colors(60))}
    adm = ReferenceFile(saved(tmp_path / "adm.npz", **arrays))
    made = protocol(extractor_sha256="none")
    random = ReferenceFile(saved(tmp_path / "random.npz", protocol=made, **arrays))
    assert set(adm.missing(RANDOM)) == set(random.missing(OURS)) == {STATISTICS, SPATIAL_STATISTICS}
    assert "random" in random.missing(OURS)[STATISTICS]
    assert adm.missing(OURS) == random.missing(RANDOM) == {}
    odd = protocol(extractor_sha256=7)
    assert STATISTICS in ReferenceFile(saved(tmp_path / "odd.npz", protocol=odd, **arrays)).missing(
        OURS
    )


BAD = {
    "width": {"mu": np.zeros(5), "sigma": np.eye(5)},
    "not square": {"sigma": np.zeros((3, 4))},
    "nan": {"mu": np.array([0, np.nan, 0])},
    "infinity": {"sigma": np.diag([1, np.inf, 1])},
    "not symmetric": {"sigma": np.arange(9.0).reshape(3, 3)},
    "not symmetric, small": {"sigma": 1e-9 * (np.eye(3) + np.eye(3, k=1) / 100)},
    "one triangle": {"sigma": np.triu(np.ones((3, 3)))},
    "negative variance": {"sigma": np.diag([1.0, -0.1, 1.0])},
    "negative": {"sigma": -np.eye(3)},
    "correlation above 1": {"sigma": np.array([[1.0, 1.01, 0], [1.01, 1, 0], [0, 0, 1]])},
    "negative eigenvalue, small": {"sigma": 1e-9 * np.diag([1.0, -0.01, 1.0])},
    "integers": {"mu": np.zeros(3, np.int64)},
    "objects": {"mu": np.array([None, None, None])},
}


@pytest.mark.parametrize("kind", BAD)
def test_damaged_statistics_are_named(tmp_path, kind):
    path = saved(tmp_path / "r.npz", **{**moments(colors(60)), **BAD[kind]})
    with pytest.raises(DataError, match=r"r\.npz.*(mu|sigma)|r\.npz is damaged"):
        ReferenceFile(path).load({STATISTICS}, WIDTHS, never)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [2, 20, 600])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_a_covariance_is_accepted_at_any_scale_and_rank(tmp_path, dtype, count, scale):
    rows = scale * np.random.default_rng(0).normal(size=(count, 300)) ** 3
    arrays = {"mu": rows.mean(0).astype(dtype), "sigma": np.cov(rows, rowvar=False).astype(dtype)}
    path = saved(tmp_path / "r.npz", **arrays)
    found = ReferenceFile(path).load({STATISTICS}, (300, 2), never)
    np.testing.assert_array_equal(found.pool.covariance, arrays["sigma"])


def test_equal_images_have_a_covariance_of_zero(tmp_path):
    path = saved(tmp_path / "r.npz", mu=np.ones(3), sigma=np.zeros((3, 3)))
    assert ReferenceFile(path).load({STATISTICS}, WIDTHS, never).pool.covariance.sum() == 0


@pytest.mark.parametrize(
    "arrays",
    [{"features": np.zeros((3, 4))}, {"mu": np.zeros(3)}, {"sigma": np.eye(3), "x": np.eye(2)}],
)
def test_files_without_statistics_and_images_are_no_references(tmp_path, arrays):
    with pytest.raises(DataError, match=r"reference build"):
        ReferenceFile(saved(tmp_path / "r.npz", **arrays))


def test_images_of_a_reference_are_checked_like_samples(tmp_path):
    path = saved(tmp_path / "r.npz", arr_0=colors(10) / 255, **moments(colors(60)))
    with pytest.raises(DataError, match="uint8"):
        ReferenceFile(path)


@pytest.mark.parametrize("text", ["not json", "[1]", "3"])
def test_a_protocol_that_cannot_be_read(tmp_path, text):
    file = ReferenceFile(saved(tmp_path / "r.npz", protocol=np.array(text), **moments(colors(60))))
    with pytest.raises(DataError, match="protocol"):
        file.missing(OURS)


def test_the_size_of_images_must_be_that_of_the_samples(tmp_path):
    statistics = moments(colors(60))
    with_images = ReferenceFile(saved(tmp_path / "a.npz", arr_0=colors(10, side=8), **statistics))
    told = ReferenceFile(
        saved(tmp_path / "b.npz", protocol=protocol(image_size="8 x 8"), **statistics)
    )
    for file in (with_images, told):
        file.require_size((8, 8), "samples")
        with pytest.raises(DataError, match=r"samples.*4 x 4.*8 x 8"):
            file.require_size((4, 4), "samples")
    ReferenceFile(saved(tmp_path / "c.npz", **statistics)).require_size((4, 4), "samples")


def test_a_written_reference_is_read_by_numpy_as_the_adm_evaluator_does(tmp_path):
    np.savez(tmp_path / "images.npz", colors(30))
    images, found = NpzImages(tmp_path / "images.npz"), features(colors(30))
    path = tmp_path / "new" / "r.npz"
    chosen = [1, 4, 29]
    write_reference(path, images, chosen, found, OURS, {"crop": "none", "image_size": "4 x 4"})
    with np.load(path) as read:  # no pickle
        assert set(read) == {"arr_0", "mu", "sigma", "mu_s", "sigma_s", "protocol"}
        assert read["arr_0"].dtype == np.uint8
        assert np.array_equal(read["arr_0"], colors(30)[chosen])
        for name, expected in moments(colors(30)).items():
            np.testing.assert_allclose(read[name], expected, rtol=1e-5)
        told = json.loads(str(read["protocol"]))
    assert (told["count"], told["crop"], told["extractor_sha256"]) == (30, "none", PUBLISHED)

    file = ReferenceFile(path)
    assert file.missing(OURS) == {}
    assert file.count == 30
    reference = file.load(ALL, WIDTHS, of_images)
    assert torch.equal(reference.pool.covariance, found.pool.covariance)


def test_a_reference_without_images(tmp_path):
    np.savez(tmp_path / "images.npz", colors(30))
    images = NpzImages(tmp_path / "images.npz")
    write_reference(tmp_path / "r.npz", images, [], features(colors(30)), OURS, {})
    assert set(ReferenceFile(tmp_path / "r.npz").missing(OURS)) == {IMAGES}


def test_nothing_is_left_of_a_reference_that_could_not_be_written(tmp_path):
    np.savez(tmp_path / "images.npz", colors(30))
    images = NpzImages(tmp_path / "images.npz")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError):  # one image has no covariance
        write_reference(tmp_path / "out" / "r.npz", images, [0], features(colors(1)), OURS, {})
    assert list((tmp_path / "out").iterdir()) == []
