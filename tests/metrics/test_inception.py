"""The Inception network: torch-fidelity's, with ADM's spatial features; where weights are."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from pae_framework.errors import CheckpointError, DataError
from pae_framework.metrics import inception
from pae_framework.metrics.inception import WeightsIdentity, missing_inception
from pae_framework.metrics.inception_network import Inception, InceptionExtractor


@pytest.fixture(scope="module")
def network():
    return Inception()


@pytest.fixture(scope="module")
def weights_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (2, 3, 5, 7), generator=generator).float()
    return torch.nn.functional.interpolate(coarse, scale_factor=6).to(torch.uint8)


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """An empty cache of weights, without network access."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PAE_OFFLINE", "1")
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_torch_fidelity_loads_the_weights_and_gives_the_same_features(
    network, weights_file, images
):
    theirs = FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights_file)
    )
    kept = []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda *call: kept.append(call[2]))
    pool, logits = theirs(images)

    found = network.features(network.preprocess(images))

    assert torch.equal(found.pool, pool)
    assert torch.equal(network.logits(found.pool), logits)
    channels_last = kept[0].permute(0, 2, 3, 1)  # (2, 17, 17, 192)
    assert torch.equal(found.spatial.view(2, 17, 17, 7), channels_last[..., :7])
    assert found.pool[0].ne(found.pool[1]).any()
    assert found.spatial[0].ne(found.spatial[1]).any()


def test_random_weights_are_the_same_every_time_and_leave_the_global_state(network):
    state = torch.random.get_rng_state()
    again = Inception()
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_features_do_not_depend_on_the_batch(network, images):
    together = network.features(network.preprocess(images))
    alone = [network.features(network.preprocess(image[None])) for image in images]
    for part in ("pool", "spatial"):
        rows = torch.cat([getattr(features, part) for features in alone])
        torch.testing.assert_close(getattr(together, part), rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_local_file_is_read_and_identified_by_its_digest(tmp_path, network, suffix):
    changed = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed["fc.weight"] += 1
    path = tmp_path / f"mine.{suffix}"
    if suffix == "safetensors":  # without counts of batches, as in files of older PyTorch
        save_file({n: value for n, value in changed.items() if "num_batches" not in n}, path)
    else:
        torch.save(changed, path)

    extractor = InceptionExtractor(str(path))

    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    ones = torch.ones(1, 2048)
    torch.testing.assert_close(extractor.logits(ones), ones @ changed["fc.weight"].T)


@pytest.mark.parametrize("damage", ["shape", "pickle"])
def test_a_file_with_other_weights_is_refused(tmp_path, network, damage):
    state = dict(network.state_dict())
    if damage == "shape":
        state["fc.weight"] = torch.zeros(1000, 2048)
    else:
        state = {"state_dict": state, "hook": pytest.raises}
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        InceptionExtractor(str(path))


def test_missing_published_weights_say_where_to_get_them_and_where_to_put_them(no_cache):
    with pytest.raises(DataError) as raised:
        InceptionExtractor("default")
    for text in (str(raised.value), missing_inception("default")):
        assert inception.WEIGHTS.url in text
        assert str(no_cache / "weights-inception-2015-12-05-6726825d.pth") in text


def test_weights_in_the_cache_of_torch_hub_are_used(no_cache, network, monkeypatch):
    no_cache.mkdir(parents=True)
    path = no_cache / inception.WEIGHTS.path.name
    torch.save(network.state_dict(), path)
    assert missing_inception("default") is None
    with pytest.raises(DataError, match="damaged"):
        InceptionExtractor("default")
    monkeypatch.setattr(inception, "PUBLISHED", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    assert WeightsIdentity(InceptionExtractor("default").sha256).published


@pytest.mark.parametrize("weights", ["missing.pth", "folder/"])
def test_a_local_file_must_exist(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert weights.rstrip("/") in missing_inception(weights)
    with pytest.raises(DataError, match=weights.rstrip("/")):
        InceptionExtractor(weights)


def test_only_the_published_weights_are_called_inception():
    assert WeightsIdentity("6726825d" + "0" * 56).words == "Inception"
    assert WeightsIdentity("none").words == "random Inception"
    assert WeightsIdentity("0123456789abcdef").words == "Inception with weights 01234567"
    assert not WeightsIdentity("none").published
