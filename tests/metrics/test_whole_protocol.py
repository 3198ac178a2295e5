"""The whole protocol with a network of Inception's size and random weights, beside torch-fidelity.

The real weights are not needed: both tools load the same file.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_fidelity
from stand_in import colors
from torch.utils.data import Dataset

from pae_framework.metrics import kernel_distance
from pae_framework.metrics.inception_network import Inception

COUNT = 12


class Images(Dataset):
    """A data set as torch-fidelity takes it."""

    def __init__(self, array):
        self.array = torch.from_numpy(array).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return self.array[index]


def pattern(seed):
    """Images of 16 patches of color."""
    patches = np.random.default_rng(seed).integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
    return patches.repeat(8, 1).repeat(8, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_torch_fidelity_gives_the_same_metrics_on_the_same_images(pae, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_distance, "SUBSET", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    torch.save(Inception().state_dict(), tmp_path / "w.pth")
    sets = pattern(0), pattern(1)
    np.savez(tmp_path / "s.npz", sets[0])
    np.savez(tmp_path / "r.npz", sets[1])

    command = ("evaluate", "--samples", "s.npz", "--reference", "r.npz", "--weights", "w.pth")
    card = pae(*command, "--metrics", "fidelity", "--json").ok().json
    ours = {metric["label"].partition(" ")[0]: metric for metric in card["metrics"]}
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(sets[0]),
        input2=Images(sets[1]),
        cuda=False,
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        kid_subset_size=10,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(tmp_path / "w.pth"),
        cache=False,
        verbose=False,
        save_cpu_ram=False,
    )
    # Their sums are in float32.
    for key, name in (
        ("FD", "frechet_inception_distance"),
        ("IS", "inception_score_mean"),
        ("KD", "kernel_inception_distance_mean"),
        ("Precision", "precision"),
        ("Recall", "recall"),
    ):
        assert ours[key]["value"] == pytest.approx(theirs[name], rel=1e-3), key


@pytest.mark.slow
def test_the_adm_protocol_from_a_folder_to_a_card(pae, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    np.savez(tmp_path / "data.npz", colors(10, side=32))
    np.savez(tmp_path / "s.npz", pattern(0))
    build = ("reference", "build", "data.npz", "--weights", "none", "--out", "r.npz")
    pae(*build, "--images", "6").ok()
    with np.load(tmp_path / "r.npz") as read:
        assert read["sigma"].shape == (2048, 2048)
        assert read["sigma_s"].shape == (2023, 2023)
        assert read["arr_0"].shape == (6, 32, 32, 3)
    command = ("evaluate", "--reference", "r.npz", "--weights", "none", "--json", "--samples")
    found = pae(*command, "s.npz").ok().json["metrics"]
    labels = [metric["label"].partition(" ")[0] for metric in found]
    assert labels == ["IS", "FD", "sFD", "Precision", "Recall"]
    assert all("random Inception" in metric["label"] for metric in found)
    same = pae(*command, "data.npz").ok().json["metrics"]
    values = {metric["label"].partition(" ")[0]: metric["value"] for metric in same}
    assert values["FD"] == pytest.approx(0, abs=1e-6)
    assert values["sFD"] == pytest.approx(0, abs=1e-6)
