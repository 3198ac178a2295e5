"""`pae evaluate` and `pae reference build`, with a network of mean colors in place of Inception."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import ColorNetwork, colors, moments, protocol

from pae_framework.evaluation import samples
from pae_framework.metrics import feature_extraction, inception, reference_files

FINISHED = Path(__file__).parent.parent / "guard" / "old_run" / "finished"


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("PAE_OFFLINE", "1")
    monkeypatch.delenv("TORCH_HOME", raising=False)


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Mean colors, whose weights ``w.pth`` count as the published ones."""
    (tmp_path / "w.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for module in (inception, reference_files):
        monkeypatch.setattr(module, "PUBLISHED", digest[:8])
    network = ColorNetwork(digest)

    def load(weights, device):
        network.sha256 = "none" if weights == "none" else digest
        return network

    monkeypatch.setattr(samples, "inception_network", load)
    return network


@pytest.fixture
def files(tmp_path):
    """Samples, and a reference in the form of the ADM evaluator's."""
    np.savez(tmp_path / "s.npz", colors(40), np.arange(40))
    np.savez(tmp_path / "r.npz", arr_0=colors(20, seed=1), **moments(colors(60, seed=2)))


def save_folder(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


SAMPLES = ("evaluate", "--samples", "s.npz", "--weights", "w.pth")


def values(result):
    return {metric["label"]: metric["value"] for metric in result.json["metrics"]}


def test_the_card_is_printed_and_written(pae, network, files, tmp_path):
    result = pae(*SAMPLES, "--reference", "r.npz", "--out", "cards/c.json").ok()
    card = json.loads((tmp_path / "cards" / "c.json").read_text())
    for metric in card["metrics"]:
        assert metric["label"] in result.out
        assert f"{metric['value']:.6g}" in result.out
        assert metric["protocol"]["extractor_sha256"] == network.sha256
        assert metric["protocol"]["count"] == 40
        assert metric["protocol"]["uint8"]
    counts = {m["label"]: m["protocol"].get("reference_count") for m in card["metrics"]}
    assert counts["Precision"] == counts["Recall"] == 20
    assert counts["FID"] == counts["sFID"] == "not stated in the file"
    assert card["environment"]["packages"]["torch"]
    assert card["environment"]["device"] == "cpu"
    assert "images/s" in result.err


def test_the_same_card_on_stdout_as_json(pae, network, files):
    found = values(pae(*SAMPLES, "--reference", "r.npz", "--json").ok())
    assert list(found) == ["IS", "FID", "sFID", "Precision", "Recall"]


def test_features_are_computed_once_for_any_number_of_references(pae, network, files):
    first = values(pae(*SAMPLES, "--reference", "r.npz", "--json").ok())
    seen = network.seen
    again = values(pae(*SAMPLES, "--reference", "r.npz", "--json").ok())
    other = values(pae(*SAMPLES, "--reference", "r.npz", "--metrics", "fidelity", "--json").ok())
    assert network.seen == seen
    assert again == first
    assert other["FID"] == first["FID"]


def test_an_interrupted_command_resumes(pae, network, files, monkeypatch):
    monkeypatch.setattr(feature_extraction, "CHUNK", 10)
    call, limit = ColorNetwork.__call__, 35

    def interrupted(self, images):
        if self.seen + len(images) > limit:
            raise OSError(5, "Input/output error", "s.npz")
        return call(self, images)

    command = (*SAMPLES, "--reference", "r.npz", "--json", "--batch-size", "5")
    with monkeypatch.context() as patch:
        patch.setattr(ColorNetwork, "__call__", interrupted)
        pae(*command).fails(1)
    before = network.seen
    pae(*command).ok()
    assert network.seen - before == 60 - before // 10 * 10


def test_a_folder_an_npz_and_a_built_reference_of_the_same_images_agree(
    pae, network, files, tmp_path
):
    save_folder(tmp_path / "photos", colors(30, seed=3))
    np.savez(tmp_path / "photos.npz", colors(30, seed=3))
    build = ("reference", "build", "photos", "--weights", "w.pth", "--images", "30")
    pae(*build, "--out", "built.npz").ok()
    found = [
        values(pae(*SAMPLES, "--reference", reference, "--json").ok())
        for reference in ("photos", "photos.npz", "built.npz")
    ]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_samples_in_a_folder_equal_those_in_an_npz(pae, network, files, tmp_path):
    save_folder(tmp_path / "folder", colors(40))
    found = [
        values(
            pae("evaluate", "--samples", s, "--reference", "r.npz", "--weights", "w.pth", "--json")
        )
        for s in ("folder", "s.npz")
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_reference_against_its_own_images(pae, network, tmp_path):
    np.savez(tmp_path / "s.npz", colors(40))
    found = values(pae(*SAMPLES, "--reference", "s.npz", "--json").ok())
    assert found["FID"] == pytest.approx(0, abs=1e-9)
    assert found["Precision"] == found["Recall"] == 1


def test_the_samples_of_a_run_and_the_data_of_a_recipe(pae, network, tmp_path):
    shutil.copytree(FINISHED, tmp_path / "run", symlinks=True)
    command = ("evaluate", "--samples", "run", "--reference", "quickstart:test", "--json")
    card = pae(*command, "--size", "16", "--weights", "w.pth").ok().json
    told, subject = (card["metrics"][1][key] for key in ("protocol", "subject"))
    assert told["uint8"] == "trunc(255 * clamp(x, 0, 1))"
    assert told["solver"] == "euler"
    assert (subject["run"], subject["generator_step"], subject["weights"]) == ("run", 4, "ema")
    assert not {"samples", "run", "generator_step", "weights"} & told.keys()
    assert told["reference"] == "data.test of quickstart"
    assert told["reference_count"] == 355


def test_random_weights_give_no_fid_and_are_not_compared_with_published_statistics(
    pae, network, files
):
    result = pae("evaluate", "--samples", "s.npz", "--reference", "r.npz", "--weights", "none")
    text = result.ok().out
    assert "Precision (random Inception)" in text
    assert "FID: not available" in text
    assert "sFID: not available" in text
    pae("evaluate", "--samples", "s.npz", "--reference", "s.npz", "--weights", "none").ok()


# --- what cannot be measured ----------------------------------------------------------------------


def test_what_a_reference_lacks_is_said_before_any_work(pae, network, files, tmp_path):
    statistics = moments(colors(60))
    np.savez(tmp_path / "fid.npz", mu=statistics["mu"], sigma=statistics["sigma"])
    result = pae(*SAMPLES, "--reference", "fid.npz").ok()
    for label, part in (
        ("sFID", "mu_s and sigma_s"),
        ("Precision", "images"),
        ("Recall", "images"),
    ):
        assert f"{label}: not available: the reference lacks {part}" in result.out
        assert result.err.index(f"{label}: not available") < result.err.index("images/s")
    assert "fid.npz does not state how its images were resized" in result.err
    assert "resized" not in pae(*SAMPLES, "--reference", "r.npz").ok().err


@pytest.mark.parametrize("metrics", ["adm", "fidelity"])
def test_one_image_is_too_few(pae, network, files, tmp_path, metrics):
    np.savez(tmp_path / "one.npz", colors(1))
    command = ("evaluate", "--samples", "one.npz", "--reference", "r.npz", "--weights", "w.pth")
    result = pae(*command, "--metrics", metrics)
    assert "at least 2" in result.out + result.err
    assert result.code == (0 if metrics == "adm" else 2)  # IS of one image is 1


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_a_reference_of_one_image_has_no_distances(pae, network, files, tmp_path, kind):
    np.savez(tmp_path / "npz", colors(1))
    (tmp_path / "npz.npz").rename(tmp_path / "npz")
    save_folder(tmp_path / "folder", colors(1))
    result = pae(*SAMPLES, "--reference", kind).ok()
    for label in ("FID", "sFID", "Precision", "Recall"):
        assert f"{label}: not available: it needs at least" in result.out


BAD_SAMPLES = {
    "float": colors(6) / 255,
    "NCHW": colors(6).transpose(0, 3, 1, 2).copy(),
    "gray": colors(6)[..., :1],
    "other size": colors(6, side=8),
}


@pytest.mark.parametrize("kind", BAD_SAMPLES)
def test_other_samples_are_refused_before_the_network_is_built(pae, network, files, tmp_path, kind):
    np.savez(tmp_path / "bad.npz", BAD_SAMPLES[kind])
    command = (
        "evaluate",
        "--samples",
        "bad.npz",
        "--reference",
        "r.npz",
        "--weights",
        "missing.pth",
    )
    result = pae(*command).fails(2)
    assert "bad.npz" in result.err
    assert network.seen == 0


def test_labels_first_and_a_cut_file_are_refused(pae, network, files, tmp_path):
    np.savez(tmp_path / "labels.npz", np.arange(6), colors(6))
    whole = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("labels.npz", "cut.npz"):
        command = ("evaluate", "--samples", name, "--reference", "r.npz", "--weights", "w.pth")
        assert name in pae(*command).fails(2).err


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--samples", "missing.npz", "missing.npz"),
        ("--samples", "x" * 300, "x" * 300),
        ("--samples", "no_recipe:test", "no_recipe"),
        ("--samples", "", "--samples"),
        ("--reference", "missing.npz", "missing.npz"),
        ("--reference", "s.json", "s.json"),
        ("--reference", "x" * 300, "x" * 300),
        ("--reference", "~nobody-here/r.npz", "nobody-here"),
        ("--weights", "~nobody-here/w.pth", "nobody-here"),
        ("--weights", "missing.pth", "missing.pth"),
        ("--weights", "defualt", "defualt"),
        ("--metrics", "fid", "fid"),
        ("--size", "0", "--size"),
        ("--batch-size", "0", "--batch-size"),
        ("--out", "folder", "folder"),
        ("--cache", "s.npz", "s.npz"),
        ("--cache", "s.npz/cache", "s.npz"),
        ("--out", "s.npz/card.json", "s.npz"),
    ],
)
def test_wrong_options_are_named(pae, network, files, tmp_path, option, value, named):
    (tmp_path / "folder").mkdir()
    (tmp_path / "s.json").write_text("{}")
    options = {"--samples": "s.npz", "--reference": "r.npz", "--weights": "w.pth", option: value}
    result = pae("evaluate", *(word for pair in options.items() for word in pair))
    assert named in result.fails(2).err
    assert network.seen == 0


def test_missing_published_weights_say_what_to_do(pae, files, tmp_path):
    result = pae("evaluate", "--samples", "s.npz", "--reference", "r.npz").fails(2)
    assert inception.WEIGHTS.url in result.err
    assert str(tmp_path / "caches" / "torch") in result.err


def test_a_size_does_not_crop_an_npz(pae, network, files):
    result = pae(*SAMPLES, "--reference", "r.npz", "--size", "2").fails(2)
    assert "4 x 4" in result.err


# --- pae reference build --------------------------------------------------------------------------


def test_a_reference_of_a_folder_cropped_to_a_size(pae, network, tmp_path):
    save_folder(tmp_path / "photos", colors(30, side=9))
    build = ("reference", "build", "photos", "--size", "4", "--weights", "w.pth")
    assert "30 images" in pae(*build, "--out", "r.npz", "--images", "7").ok().out
    with np.load(tmp_path / "r.npz") as read:
        assert read["arr_0"].shape == (7, 4, 4, 3)
        np.testing.assert_allclose(read["mu"], moments(colors(30))["mu"], rtol=1e-5)
        told = json.loads(str(read["protocol"]))
    assert told["count"] == 30
    assert told["crop"] == "ADM center crop to 4 px"
    assert told["formats"] == "30 png"
    assert told["extractor_sha256"] == network.sha256


def test_an_existing_reference_is_replaced_only_on_request(pae, network, files, tmp_path):
    before = (tmp_path / "r.npz").read_bytes()
    build = ("reference", "build", "s.npz", "--weights", "w.pth", "--out", "r.npz")
    assert "--force" in pae(*build).fails(2).err
    assert (tmp_path / "r.npz").read_bytes() == before
    pae(*build, "--force").ok()
    assert (tmp_path / "r.npz").read_bytes() != before


@pytest.mark.parametrize("out", ["r.pt", "r", "folder.npz"])
def test_a_reference_is_an_npz_file(pae, network, files, tmp_path, out):
    (tmp_path / "folder.npz").mkdir()
    result = pae("reference", "build", "s.npz", "--weights", "w.pth", "--out", out, "--force")
    assert out in result.fails(2).err


def test_a_reference_of_one_image_is_refused(pae, network, tmp_path):
    np.savez(tmp_path / "one.npz", colors(1))
    build = ("reference", "build", "one.npz", "--weights", "w.pth", "--out", "r.npz")
    assert "at least 2" in pae(*build).fails(2).err
    assert not (tmp_path / "r.npz").exists()


def test_statistics_of_other_features_are_refused_before_samples_are_read(
    pae, network, files, tmp_path
):
    np.savez(tmp_path / "wide.npz", mu=np.zeros(64), sigma=np.eye(64))
    result = pae(*SAMPLES, "--reference", "wide.npz").fails(2)
    assert "(64,)" in result.err
    assert network.seen == 0


def test_a_reference_made_with_other_weights_is_named(pae, network, files, tmp_path):
    made = protocol(extractor_sha256="none", image_size="4 x 4")
    np.savez(tmp_path / "random.npz", protocol=made, **moments(colors(60)))
    out = pae(*SAMPLES, "--reference", "random.npz").ok().out
    assert "FID: not available: the reference's statistics are in features of random" in out
