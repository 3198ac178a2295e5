"""What evaluators are given is computed once, whoever asks."""

from types import SimpleNamespace

import torch

from pae_framework.stages.material import RunMaterial


class CountingExtractor:
    name = "counting"

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return images.double().mean((2, 3))


def test_features_of_the_test_images_are_extracted_once():
    data = SimpleNamespace(test_images=None)
    material = RunMaterial(SimpleNamespace(recipe=SimpleNamespace(data=data)))
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    extractor = CountingExtractor()
    # Stand-ins for the run's test images and its trained extractor.
    vars(material).update(_test=(images, torch.zeros(5)), extractor=extractor)

    first, again = material.image_features, material.image_features

    assert first.tolist() == [[float(level)] * 3 for level in range(5)]
    assert again is first
    assert extractor.calls == 1
