"""Rules of a whole page, as its reader would check them: size, pictures, controls, order."""

import base64
import re
from html.parser import HTMLParser
from itertools import cycle, islice

import pytest
import torch
from sklearn.datasets import load_sample_images

from pae_framework.report.attachments import Attachment
from pae_framework.report.charts import READINGS, along, series_colors, training
from pae_framework.report.content import (
    Clusters,
    LabeledImages,
    Nearest,
    ReportContent,
    Rotations,
    StageSummary,
    SweepContent,
    VariantImages,
)
from pae_framework.report.html import render, render_sweep
from pae_framework.report.metrics import GENERATOR_STEPS
from pae_framework.report.plots import GRAY, PALETTE
from pae_framework.training.train_settings import DISCRIMINATOR_PREFIX, LOG_COLUMNS


class Elements(HTMLParser):
    """The start tags of a page with their attributes, in order, and the text in each."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", "inside": [e["tag"] for e in self.open], **dict(attrs)}
        self.found.append(element)
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(element)

    def handle_endtag(self, tag):
        self.handle_data(" ")
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag):
        return [element for element in self.found if element["tag"] == tag]


def noise(count, side, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def photographs(count, side, seed):
    """Parts of the two photographs of scikit-learn."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for image in islice(cycle(load_sample_images().images), count):
        limits = [1 + size - side for size in image.shape[:2]]
        top, left = (int(torch.randint(limit, (), generator=generator)) for limit in limits)
        parts.append(torch.tensor(image[top : top + side, left : left + side]).permute(2, 0, 1))
    return torch.stack(parts)


def log(*terms, count=5):
    return [{"step": i, **dict.fromkeys(terms, 1.0 + i)} for i in range(count)]


def example_metric(value):
    return {
        "name": "generation/fd",
        "label": "gFD",
        "value": value,
        "std": None,
        "higher_is_better": False,
        "at": {},
        "protocol": {"samples": "many"},
    }


def example(side, images=noise, classes=10):
    """A page like that of a finished run, with images of a side in px."""
    shown = images(16, side, 0)
    labels = torch.arange(classes).repeat_interleave(10)
    names = [f"class {label}" for label in range(classes)]
    main = LabeledImages("generator step 350", images(len(labels), side, 1), labels)
    grid = max(8, side // 16)
    return ReportContent(
        name="example",
        description="An example.",
        recipe_yaml="pae: 1\nvalue: " + "long" * 60 + "\n",
        given_yaml="pae: 1\n",
        environment={"python": "3.11", "long": "word" * 60},
        stages=[StageSummary("tokenizer", 61.2, 900, 412.3, "0123456789ab")],
        curves={
            "encoder": log("images_per_s", "grad_norm", "loss", "l1", "lr", "data_wait"),
            "tokenizer": log("kl", "loss", "lr"),
            "short": log("loss", "lr", count=2),
        },
        metrics=[
            {**example_metric(2.0 + step), "at": {"generator_step": step}} for step in (1, 2, 3)
        ],
        originals=shown,
        reconstructions=images(16, side, 2),
        samples=main,
        same_noise={"During training": [main, main, main], "With few sampling steps": [main, main]},
        nearest=Nearest(images(10, side, 3), images(30, side, 4).unflatten(0, (10, 3)), "m", 9, 9),
        class_names=names,
        latents=torch.randn(16, 4, grid, grid, generator=torch.Generator().manual_seed(0)),
        latent_images=shown,
        clusters=Clusters(shown, {"latents": torch.zeros(16, grid, grid, dtype=torch.long)}),
        rotations=Rotations((0, 45, 85), images(24, side, 5).unflatten(0, (3, 8))),
        attachments={
            "own": [Attachment("own/t.csv", "wide", heading=["h" * 30] * 12, rows=[["1"] * 12] * 9)]
        },
        changes=[("generator.depth", "3", "4")],
        commands=["pae run " + "x" * 200],
    )


@pytest.fixture(scope="module")
def html():
    return render(example(32))


@pytest.fixture(scope="module")
def page(html):
    return Elements(html)


def test_a_page_of_small_images_has_less_than_2_mb(html):
    assert len(html.encode()) < 2_000_000


def test_a_page_of_photographs_has_less_than_6_mb():
    assert len(render(example(256, photographs)).encode()) < 6_000_000


def test_a_sweep_of_photographs_has_less_than_6_mb():
    names, labels = [f"variant {number}" for number in range(4)], torch.arange(10)
    content = SweepContent(
        name="large",
        members=[],
        samples={
            name: LabeledImages(name, photographs(10, 256, seed), labels)
            for seed, name in enumerate(names)
        },
        shown={
            name: VariantImages(
                photographs(10, 256, seed), photographs(10, 256, 9), torch.zeros(10, 4, 16, 16)
            )
            for seed, name in enumerate(names)
        },
    )
    assert len(render_sweep(content).encode()) < 6_000_000


def test_no_address_leads_out_of_the_page(html, page):
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"data:[^\"]*", "", html))
    assert not page.all("script")
    for element in page.found:
        for key in ("src", "href"):
            assert element.get(key, "#").startswith(("data:image/", "#"))
        assert not [key for key in element if key.startswith("on")]


def test_pictures_are_decoded_when_they_are_seen(page):
    assert len(page.all("img")) > 100
    for image in page.all("img"):
        assert (image["loading"], image["decoding"]) == ("lazy", "async")


def test_every_picture_can_be_enlarged_without_a_script(page):
    for image in page.all("img"):
        assert "label" in image["inside"]
    for box in page.all("input"):
        assert box["type"] == "checkbox"
        assert box["inside"][-1] == "label"
        assert len(box["aria-label"]) > len("enlarge: ")
    assert len(page.all("input")) == len([e for e in page.all("label") if e["class"] == "zoom"])


def test_losses_come_first_and_readings_of_the_engine_are_folded(page):
    charts = [image for image in page.all("img") if "of the stage encoder" in image["alt"]]
    terms = [image["alt"].split(" of the stage")[0] for image in charts]
    assert terms == ["loss", "l1", "images_per_s", "grad_norm", "lr", "data_wait"]
    folded = ["details" in image["inside"] for image in charts]
    assert folded == [False, False, True, True, True, True]


def test_readings_are_the_logged_columns_that_are_no_losses():
    losses = {"loss", f"{DISCRIMINATOR_PREFIX}loss"}
    assert set(READINGS) == set(LOG_COLUMNS) - losses - {"step"}


def test_a_loss_has_its_own_color_in_every_stage_and_readings_are_gray():
    terms = [f"term {number}" for number in range(9)]
    stages = {"encoder": log("lr", "loss", terms[4]), "tokenizer": log(*terms, "loss")}
    colors = {}
    for section in training(stages).values():
        for term, panel in (*section.losses, *section.readings):
            svg = base64.b64decode(panel.uri.partition(",")[2]).decode()
            colors.setdefault(term, set()).update(c for c in (*PALETTE, GRAY) if c in svg)
    assert colors.pop("lr") == {GRAY}
    found = [frozenset(drawn - {GRAY}) for drawn in colors.values()]  # axes are gray
    assert [len(drawn) for drawn in found] == [1] * 10
    assert len(set(found)) == 10


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_points_without_a_finite_value_make_no_chart(value):
    metrics = [
        {**example_metric(1.0 + step), "at": {"generator_step": step}} for step in (1, 2)
    ] + [{**example_metric(value), "at": {"generator_step": 3}}]
    section = along(metrics, GENERATOR_STEPS, series_colors(metrics))
    assert section.positions == ["1", "2", "3"]
    assert section.chart is None


def test_two_points_make_no_chart_but_their_last_value_is_shown(page):
    assert not [image for image in page.all("img") if "of the stage short" in image["alt"]]
    (training,) = [section for section in page.all("section") if section.get("id") == "training"]
    assert "2 at step 1" in " ".join(training["text"].split())


def test_every_metric_has_a_folded_protocol(page):
    cards = [element for element in page.all("article") if element["class"] == "card"]
    assert len(cards) == 1
    assert [e for e in page.all("details") if "article" in e["inside"] and "many" in e["text"]]


def test_the_difference_to_the_parent_is_in_the_recipe_section(page):
    (recipe,) = [section for section in page.all("section") if section.get("id") == "recipe"]
    assert "generator.depth 3 4" in " ".join(recipe["text"].split())
