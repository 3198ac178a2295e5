"""The sample stage: each set is sampled once, by the first recipe of a store that asks."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from sampled_run import SampledRun

from pae_framework.config import LatentShape
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.sampling.reuse import reuse_finished, set_identity
from pae_framework.sampling.sample_set import open_set, read_sets, write_set
from pae_framework.sampling.sampler import Sampler
from pae_framework.stages import sample

MAIN, FEW, EARLY = (
    f"samples-step{name}.npz" for name in ("000006-euler004", "000006-euler002", "000003-euler004")
)


class CountingSampler(Sampler):
    """Samples images of the values steps + number; records weights and steps of each call."""

    asked: ClassVar[list[tuple[str, int]]] = []
    loaded: ClassVar[list[str]] = []

    @classmethod
    def of(cls, context):
        tokenizer = SimpleNamespace(latent=LatentShape(4, 4))
        return cls(SimpleNamespace(num_classes=10), tokenizer, None)

    def load(self, weights):
        self.loaded.append(weights.name)

    def images(self, labels, indices, settings):
        self.asked.append((self.loaded[-1], settings.steps))
        self.count.add(len(indices), 20, 10)
        return (settings.steps + indices).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def stage(tmp_path, tiny_recipe, registry):
    """Run the stage of the tiny recipe, changed; each call in its own folder unless named."""
    CountingSampler.asked.clear()

    def run(*overrides, folder=None, fingerprint="a", sampler=CountingSampler, **facts):
        recipe = load_recipe(tiny_recipe, ["sample.batch_size=20", *overrides], registry).recipe
        store = tmp_path / "stages"
        number = len(list(store.glob("sample-*")))
        context = SampledRun(
            store, fingerprint, registry, recipe, store / (folder or f"sample-{number}")
        )
        context.train_source = range(64)
        (context.results("generator").folder / "weights-step000003.safetensors").write_text("early")
        CountingSampler.asked.clear()
        sample.run(context, lambda context: replace(sampler.of(context), **facts))
        return context

    return run


def listed(context):
    return json.loads((context.directory / "sets.json").read_text(encoding="utf-8"))


def printed(context):
    return context.console.export_text()


LAST, THIRD = "weights.safetensors", "weights-step000003.safetensors"


def test_every_set_is_sampled_from_its_weights_in_its_steps(stage):
    context = stage()
    assert CountingSampler.asked == [(LAST, 4), (THIRD, 4), (LAST, 2)]
    assert [entry["file"] for entry in listed(context)] == [MAIN, EARLY, FEW]
    assert len({entry["identity"] for entry in listed(context)}) == 3


def test_another_step_count_samples_only_what_is_missing(stage):
    first, second = stage("sample.few_steps=[]", "sample.at_steps=[]"), stage()
    assert CountingSampler.asked == [(THIRD, 4), (LAST, 2)]
    text = printed(second)
    assert MAIN in text
    assert "sample-0" in text
    ours, theirs = (context.directory / MAIN for context in (first, second))
    assert ours.samefile(theirs)
    assert len(read_sets(lambda name: second.directory / name)) == 3
    ours.unlink()  # what one recipe removes, the other keeps
    images, labels = open_set(theirs)
    assert images[:, 0, 0, 0].tolist() == list(range(4, 24))
    assert len(labels) == 20


def test_the_role_is_that_of_the_new_recipe(stage):
    stage()
    context = stage("sample.steps=2", "sample.few_steps=[]", "sample.at_steps=[]")
    assert CountingSampler.asked == []
    (entry,) = listed(context)
    assert (entry["role"], entry["steps"]) == ("main", 2)


SMALL = "sample.convergence={count: 10, steps: 3, seed: 5}"
SMALL_LAST, SMALL_EARLY = (f"convergence-step00000{step}-euler003.npz" for step in (6, 3))


def test_a_protocol_for_convergence_samples_every_step_and_the_last(stage):
    context = stage(SMALL, "sample.few_steps=[]")
    assert CountingSampler.asked == [(LAST, 4), (THIRD, 3), (LAST, 3)]
    main, early, last = listed(context)
    assert [entry["file"] for entry in (main, early, last)] == [MAIN, SMALL_EARLY, SMALL_LAST]
    assert early["role"] == last["role"] == "convergence"
    for entry, step in ((early, 3), (last, 6)):
        told = entry["protocol"]
        assert (told["steps"], told["sample_seed"], told["generator_step"]) == (3, 5, step)
        # batches of 16 of the 64 images of the fixture
        assert (told["images_seen"], told["epochs"]) == (16 * step, 16 * step / 64)
        images, labels = open_set(context.directory / entry["file"])
        assert (len(images), sorted(labels.tolist())) == (10, list(range(10)))
    assert len(open_set(context.directory / MAIN)[0]) == 20
    assert not {"images_seen", "epochs"} & main["protocol"].keys()


def test_the_protocol_for_convergence_does_not_follow_the_other_samples(stage):
    stage(SMALL, "sample.few_steps=[]")
    context = stage(
        SMALL, "sample.few_steps=[]", "sample.steps=7", "sample.count=30", "sample.seed=1"
    )
    assert {steps for _, steps in CountingSampler.asked} == {7}
    assert [e["role"] for e in listed(context)] == ["main", "convergence", "convergence"]


UNGUIDED = "sample.variants={unguided: {solver: euler_maruyama, steps: 5, guidance: {scale: 1}}}"
ALONE = ("sample.few_steps=[]", "sample.at_steps=[]")


def test_a_variant_is_a_set_with_a_label(stage):
    context = stage(UNGUIDED, "sample.guidance.scale=3", *ALONE)
    assert CountingSampler.asked == [(LAST, 4), (LAST, 5)]
    main, variant = listed(context)
    assert "variant" not in main
    assert (variant["role"], variant["variant"]) == ("variant", "unguided")
    assert variant["file"] == "samples-unguided-step000006-euler_maruyama005.npz"
    told = [(e["protocol"]["solver"], e["protocol"]["guidance"]) for e in (main, variant)]
    assert told == [("euler", 3), ("euler_maruyama", 1)]
    seeds = {entry["protocol"]["sample_seed"] for entry in (main, variant)}
    assert len(seeds) == 1
    read = read_sets(lambda name: context.directory / name)
    assert [each.variant for each in read] == [None, "unguided"]
    assert torch.equal(*(each.labels for each in read))


def test_a_variant_reuses_the_samples_of_a_recipe_with_its_settings(stage):
    own = ("sample.solver=euler_maruyama", "sample.steps=5", "sample.guidance=null")
    stage(*own, *ALONE)
    stage(UNGUIDED, "sample.guidance.scale=3", *ALONE)
    assert CountingSampler.asked == [(LAST, 4)]


def test_few_steps_with_several_solvers(stage):
    solvers = "sample.few_steps_solvers=[euler, heun]"
    context = stage("sample.at_steps=[]", "sample.few_steps=[2, 4]", solvers)
    found = [(e["protocol"]["solver"], e["steps"], e["role"]) for e in listed(context)]
    assert found == [
        ("euler", 4, "main"),
        ("euler", 2, "few_steps"),
        ("heun", 2, "few_steps"),
        ("heun", 4, "few_steps"),
    ]
    assert len({entry["file"] for entry in listed(context)}) == 4


def test_without_links_a_set_is_copied(stage, tmp_path):
    def refuse(*arguments):
        raise OSError("not here")

    first = stage()
    (entry,) = (entry for entry in listed(first) if entry["file"] == MAIN)
    second = tmp_path / "stages" / "sample-1"
    second.mkdir()
    labels = open_set(first.directory / MAIN)[1]
    assert reuse_finished(second, entry, labels, refuse) == first.directory
    paths = [directory / MAIN for directory in (first.directory, second)]
    assert not paths[0].samefile(paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    "change", ["count=21", "seed=1", "guidance.scale=2", "shift=0.5", "labels=uniform"]
)
def test_settings_that_change_images_sample_again(stage, change):
    stage()
    context = stage(f"sample.{change}")
    assert len(CountingSampler.asked) >= 3
    assert printed(context) == ""


@pytest.mark.parametrize("change", ["batch_size=3", "processes=2"])
def test_settings_that_change_no_image_reuse_sets(stage, change):
    stage()
    stage(f"sample.{change}")
    assert CountingSampler.asked == []


@pytest.mark.parametrize("file", ["generator/weights", "tokenizer/tokenizer"])
def test_other_weights_sample_again(stage, file):
    context = stage()
    (context.store / f"{file}.safetensors").write_text("trained again")
    stage()
    assert (LAST, 4) in CountingSampler.asked


def test_other_code_samples_again(stage):
    stage()
    stage(fingerprint="b")
    assert len(CountingSampler.asked) == 3


@pytest.mark.parametrize(
    "damage", ["set", "a flipped bit", "list", "a number", "other labels", "gone", "no identity"]
)
def test_an_unusable_set_is_sampled_again(stage, damage):
    context = stage()
    path, file = context.directory / MAIN, context.directory / "sets.json"
    if damage == "set":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "a flipped bit":
        content = path.read_bytes()
        middle = len(content) // 2  # among the images
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage in ("list", "a number"):
        file.write_text({"list": "[", "a number": "3"}[damage])
    elif damage == "gone":
        path.unlink()
    elif damage == "no identity":  # as an earlier release listed them
        entries = [{**entry, "identity": None} for entry in listed(context)]
        file.write_text(json.dumps(entries))
    else:
        labels = torch.zeros(20, dtype=torch.int64)
        images = torch.zeros(20, 3, 4, 4, dtype=torch.uint8)
        list(write_set(path, labels, lambda indices: images, 20, ""))
    stage()
    assert (LAST, 4) in CountingSampler.asked


class InterruptedSampler(CountingSampler):
    """Is interrupted in the set of the earlier weights."""

    def images(self, labels, indices, settings):
        if self.loaded[-1] == THIRD:
            raise KeyboardInterrupt
        return super().images(labels, indices, settings)


def test_after_an_interruption_finished_sets_keep_their_counted_evaluations(stage):
    """The first set takes 20 evaluations an image; the second is interrupted."""
    dopri5 = ["sample.solver=dopri5", "sample.few_steps=[]"]
    with pytest.raises(KeyboardInterrupt):
        stage(*dopri5, folder="sample-x", sampler=InterruptedSampler)
    context = stage(*dopri5, folder="sample-x")
    assert CountingSampler.asked == [(THIRD, 4)]
    assert [entry["protocol"]["evaluations"] for entry in listed(context)] == [20, 20]
    assert printed(context) == ""


def test_the_identity_includes_the_weights_of_autoguidance_but_not_its_path(tmp_path, stage):
    context = stage()

    def identity(run, content):
        weights = tmp_path / run / "generator" / "weights.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_text(content)
        settings = context.recipe.sample
        guidance = settings.guidance.model_copy(update={"autoguidance": str(tmp_path / run)})
        settings = settings.model_copy(update={"guidance": guidance})
        weights = context.results("generator").folder / LAST
        return set_identity(context, weights, torch.arange(3), settings)

    assert identity("one", "same") == identity("two", "same")
    assert identity("one", "other") != identity("two", "same")


def test_a_reused_set_keeps_its_tf32(stage):
    stage(tf32=True)
    taken = stage()
    assert CountingSampler.asked == []
    assert all(entry["protocol"]["tf32"] for entry in listed(taken))
