"""The page: self-contained, valid HTML, complete, escaped, without empty sections."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from pae_framework.report.attachments import Attachment
from pae_framework.report.beside_paper import paper_table
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
from pae_framework.report.page import duration
from pae_framework.report.table import MemberMetrics
from pae_framework.report.verdict import Verdict

HOSTILE = "<script>alert('x')</script>\"&"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads a page; fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, *names):
        return [value for name, value in self.attributes if name in names]


def images(count, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def metric(name, label, value, protocol, **at):
    return {
        "name": name,
        "label": label,
        "value": value,
        "std": None,
        "higher_is_better": False,
        "at": at,
        "protocol": protocol,
    }


def metrics(scale=1.0):
    drawn = {"extractor": "small_cnn", "samples": {"solver": "euler", "guidance": 1.5}}
    found = [metric("manifold/lpc", "LPC", 0.105 * scale, {"directions": 17})]
    for step, value in ((250, 4.0), (500, 3.5), (1000, 2.0)):
        found.append(metric("generation/fd_x", "gFD", value * scale, drawn, generator_step=step))
    for steps, value in ((5, 3.0), (20, 2.5), (50, 2.0)):
        at = {"steps": steps, "evaluations": 2 * steps}
        found.append(metric("few_steps/fd_x", "gFD", value * scale, {**drawn, **at}, **at))
    return found


@pytest.fixture(scope="module")
def content():
    labels = torch.tensor([0, 1, 2, 1])
    return ReportContent(
        name="tiny",
        description="First part.\n\nSecond part.",
        recipe_yaml="pae: 1\nname: tiny\n",
        given_yaml="extends: other\n",
        overrides=["generator.train.steps=7"],
        environment={"python": "3.11", "packages": {"torch": "2.14"}},
        stages=[StageSummary("tokenizer", 61.2, 900, 412.3), StageSummary("latents", 3.25)],
        curves={"tokenizer": [{"step": i, "loss": 1.0 / (i + 1)} for i in range(5)]},
        metrics=metrics(),
        originals=images(4),
        reconstructions=images(4, seed=1),
        samples=LabeledImages("last weights", images(4, seed=2), labels),
        same_noise={
            "During training": [
                LabeledImages("earlier weights", images(4, seed=3), labels),
                LabeledImages("last weights", images(4, seed=2), labels),
            ]
        },
        nearest=Nearest(images(2), images(6, seed=4).view(2, 3, 3, 8, 8), "nose", 50, 70),
        clusters=Clusters(images(4), {"latents": torch.arange(16).view(4, 2, 2) % 3}),
        rotations=Rotations((0, 85), images(8, seed=5).view(2, 4, 3, 8, 8)),
        attachments={"own": [Attachment("own/a.csv", "a table", heading=["u"], rows=[["v7"]])]},
        changes=[("generator.depth", "3", "4")],
        class_names=["ant", "bee", "cat"],
        latents=torch.randn(4, 5, 2, 2, generator=torch.Generator().manual_seed(0)),
        latent_images=images(4),
        commands=["pae run tiny.yaml"],
    )


@pytest.fixture(scope="module")
def full_page(content):
    return render(content)


def verdict(words):
    class Named(Verdict):
        question = words

    return Named("yes", words, (), ())


def variant_images(seed, shown=0):
    latents = torch.randn(4, 5, 2, 2, generator=torch.Generator().manual_seed(seed))
    return VariantImages(images(4, seed=shown), images(4, seed=10 + seed), latents)


@pytest.fixture
def sweep():
    labels = torch.tensor([0, 1, 2, 1])
    return SweepContent(
        name="ablation",
        members=[
            MemberMetrics(variant, seed, metrics(scale + 0.1 * seed))
            for variant, scale in (("none", 2.0), ("all", 1.0))
            for seed in (0, 1)
        ],
        reports={("all", 1): "members/all-seed1/report.html"},
        unfinished=["late-seed0", "late-seed1"],
        variants=["none", "all", "late"],
        differences={"tokenizer.regularizers.ssr": ["not set", "ssr", "ssr"]},
        base="none",
        samples={"none": LabeledImages("none", images(4), labels)},
        shown={variant: variant_images(seed) for seed, variant in enumerate(("none", "all"))},
        class_names=["ant", "bee", "cat"],
        recipe_yaml="pae: 1\n",
        environment={"python": "3.11"},
        commands=["pae run ablation.yaml"],
    )


def test_the_page_holds_everything_it_was_given(full_page):
    text = Page(full_page).text
    for word in (
        *("tiny", "First part.", "Second part.", "ant", "bee", "cat"),
        *("last weights", "earlier weights", "generator.train.steps=7", "extends: other"),
        *("pae: 1 name: tiny", "packages.torch", "2.14", "pae run tiny.yaml"),
        *("tokenizer", "1 min 01 s", "900", "412", "latents", "3.2 s"),
    ):
        assert word in text, word


def test_the_results_come_first(full_page):
    text = Page(full_page).text
    assert text.index("0.105") < text.index("Samples")
    # the last weights, and the fewest sampling steps
    head = text[: text.index("lower is better")]
    assert "generator step 1000 2.000" in head
    assert "5 sampling steps, evaluations 10 3.000" in head
    assert "4.000" not in head


def test_every_metric_is_shown_with_its_protocol(full_page):
    page = Page(full_page)
    cards = page.text[page.text.index("their protocols") :]
    assert page.tags.count("article") == 3
    for word in ("manifold/lpc", "directions 17", "samples.solver euler", "samples.guidance 1.5"):
        assert word in cards
    # each point of a series, with what its protocol does not share with the others
    for word in ("generator step 250 4.000", "generator step 1000 2.000", "3.000 5 10", "2.000 50"):
        assert word in cards


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_the_page_makes_no_request(kind, full_page, sweep):
    html = full_page if kind == "run" else render_sweep(sweep)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    inside = ("#",) if kind == "run" else ("#", "members/")
    assert all(value.startswith(inside) for value in page.values("href"))
    assert not re.search(r"https?://|url\(|@import", html)
    for kind_of_image, encoded in re.findall(r"data:image/([a-z+]+);base64,([^\"]+)", html):
        payload = base64.b64decode(encoded, validate=True)
        starts = {"png": b"\x89PNG", "webp": b"RIFF", "svg+xml": b"<svg"}
        assert payload.startswith(starts[kind_of_image])
        if kind_of_image == "svg+xml":
            links = re.findall(r"(?:href|src)=\"([^\"]*)\"|url\(([^)]*)\)", payload.decode())
            assert all((link or url).startswith("#") for link, url in links)


def test_names_are_never_markup(content):
    word = {name: f"<script>{name}</script>\"&'" for name in "abcdefghijklmnopqrstuvwxyz"}
    w = word.__getitem__
    hostile = replace(
        content,
        name=w("a"),
        description=w("b"),
        recipe_yaml=w("c"),
        given_yaml=w("d"),
        overrides=[w("e")],
        environment={w("f"): w("g")},
        stages=[StageSummary(w("h"), 1.0, fingerprint=w("i"))],
        curves={w("j"): [{"step": step, w("k"): 1.0} for step in range(3)]},
        metrics=[metric(f"{w('l')}/x", w("m"), 1.0, {w("n"): [w("o")]})],
        samples=LabeledImages(w("p"), images(2), torch.tensor([0, 1])),
        same_noise={w("s"): [LabeledImages(w("t"), images(2), torch.tensor([0, 1]))] * 2},
        class_names=[w("q"), "plain"],
        nearest=Nearest(images(2), images(2)[:, None], w("u"), 2, 2),
        clusters=Clusters(images(2), {w("v"): torch.zeros(2, 2, 2, dtype=torch.long)}),
        attachments={
            w("w"): [Attachment("x", w("x"), heading=["a"], rows=[[w("y")]], note=w("z"))],
        },
        changes=[(w("a"), w("b"), w("c"))],
        commands=[w("r")],
    )
    page = Page(render(hostile))
    assert "script" not in page.tags
    for name, text in word.items():
        assert text in page.text, name
    assert f"samples of {w('q')}" in page.values("aria-label")
    assert f"{w('k')} of the stage {w('j')} over steps" in page.values("alt")


def test_names_in_a_sweep_are_never_markup(sweep):
    hostile = replace(
        sweep,
        name=HOSTILE,
        members=[MemberMetrics(HOSTILE, 0, metrics()), MemberMetrics("_$x$", 0, metrics(2.0))],
        reports={(HOSTILE, 0): HOSTILE},
        unfinished=[HOSTILE],
        variants=[HOSTILE],
        differences={HOSTILE: [HOSTILE]},
        base="_$x$",
        verdicts={(HOSTILE, 0): verdict(HOSTILE)},
        paper=paper_table(HOSTILE, {HOSTILE: {HOSTILE: 1}}, [HOSTILE], []),
        samples={HOSTILE: LabeledImages(HOSTILE, images(2), torch.tensor([0, 1]))},
        shown={HOSTILE: variant_images(0)},
        class_names=[HOSTILE, "plain"],
    )
    page = Page(render_sweep(hostile))
    assert "script" not in page.tags
    # title, heading, row of the results, unfinished, what differs (key, variant, value), column of
    # the differences, class, and the rows of samples, reconstructions and latents; question,
    # sentence and variant of the verdict; metric, variant and source of the published values
    assert page.text.count(HOSTILE) == 18
    assert HOSTILE in page.values("href")
    assert f"samples of {HOSTILE}" in page.values("aria-label")


def test_page_without_sections():
    page = Page(render(ReportContent(name="bare")))
    assert page.text == (
        "bare Run report bare "
        "Written by pae-framework. Self-contained: loads nothing from the network."
    )
    for tag in ("section", "table", "img", "h2", "details", "a"):
        assert tag not in page.tags


PARTS = {
    "samples": {"samples": None},
    "reconstructions": {"reconstructions": None},
    "latents": {"latents": None, "clusters": None, "rotations": None},
    "evaluators": {"attachments": {}},
    "training": {"stages": (), "curves": {}},
    "protocols": {"metrics": ()},
    "recipe": {"recipe_yaml": ""},
    "environment": {"environment": {}},
    "commands": {"commands": ()},
}


@pytest.mark.parametrize("part", PARTS)
def test_missing_section_is_left_out_with_its_link(part, content):
    content = replace(content, curves={}, metrics=metrics()[:1])  # charts take most of the time
    assert part in Page(render(content)).values("id")
    page = Page(render(replace(content, **PARTS[part])))
    assert part not in page.values("id")
    links = {value.removeprefix("#") for value in page.values("href")}
    assert links <= set(page.values("id"))


def test_empty_sets_and_metrics_without_a_value_break_nothing():
    nothing = LabeledImages("none", images(0), torch.zeros(0, dtype=torch.long))
    odd = [
        metric("generation/fd_x", "gFD", value, {}, generator_step=step)
        for step, value in ((1, None), (2, float("nan")), (3, float("inf")))
    ]
    none = images(0)
    page = Page(
        render(
            ReportContent("odd", samples=nothing, originals=none, reconstructions=none, metrics=odd)
        )
    )
    assert "samples" not in page.values("id")
    assert "reconstructions" not in page.values("id")
    assert "nan" in page.text


def test_the_same_noise_is_shown_through_every_set(content, full_page):
    page = Page(full_page)
    assert "During training, from the same noise" in page.text
    rows = [v for v in page.values("aria-label") if v.startswith("During training: ")]
    assert rows == ["During training: earlier weights", "During training: last weights"]
    alone = {varied: sets[:1] for varied, sets in content.same_noise.items()}
    assert "same noise" not in Page(render(replace(content, same_noise=alone, curves={}))).text


def test_many_classes_are_thinned_and_the_page_says_so():
    many = LabeledImages("all", images(100), torch.arange(100))
    names = [f"class number {i}" for i in range(100)]
    text = Page(render(ReportContent("many", samples=many, class_names=names))).text
    assert "20 of 100 classes" in text


def test_the_same_content_gives_the_same_page(content, full_page):
    assert render(content) == full_page


def test_a_sweep_shows_mean_and_spread_per_variant(sweep):
    page = Page(render_sweep(sweep))
    assert "Comparison of 2 variants" in page.text
    # gFD of `none`: 2.0 * (2.0 and 2.1) at the last step; of `all`: 2.0 * (1.0 and 1.1)
    assert "4.100 ± 0.100" in page.text
    assert "2.100 ± 0.100" in page.text
    assert page.text.count("0, 1") == 2
    assert "gFD over generator steps" in page.values("alt")
    assert "gFD over network evaluations" in page.values("alt")
    assert "samples of none" in page.values("aria-label")


def test_a_sweep_links_its_members_and_names_those_that_are_missing(sweep):
    page = Page(render_sweep(sweep))
    links = [value for value in page.values("href") if not value.startswith("#")]
    assert links == ["members/all-seed1/report.html"]
    assert "late-seed0, late-seed1" in page.text


def test_a_sweep_shows_what_differs_and_by_how_much(sweep):
    text = Page(render_sweep(sweep)).text
    assert "key none all late tokenizer.regularizers.ssr not set ssr ssr" in text
    # LPC is 0.105 times 2.0 and 2.1 of `none`, 1.0 and 1.1 of `all`
    assert "Differences to none" in text
    assert "LPC ↓ -0.105 ± 0.000" in text


def test_a_sweep_shows_the_same_test_images_through_every_variant(sweep):
    page = Page(render_sweep(sweep))
    rows = [v for v in page.values("aria-label") if re.match("test images|reconstr|latents", v)]
    shared = ["test images", "reconstructions of none", "reconstructions of all"]
    assert rows == [*shared, "test images", "latents of none", "latents of all"]
    other = {**sweep.shown, "other": variant_images(2, shown=1)}
    page = Page(render_sweep(replace(sweep, shown=other)))
    rows = [v for v in page.values("aria-label") if re.match("test images|reconstr", v)]
    assert rows[:5] == [*shared, "test images", "reconstructions of other"]
    assert "ant, bee, cat" in page.text


def test_a_sweep_states_the_verdict_on_each_member(sweep):
    sentences = {("none", 0): "No: poor.", ("all", 1): "Yes: good."}
    found = {key: Verdict("yes", sentence, (), ()) for key, sentence in sentences.items()}
    page = Page(render_sweep(replace(sweep, verdicts=found)))
    assert "variant seed verdict none 0 No: poor. all 1 Yes: good." in page.text
    assert page.values("href").count("members/all-seed1/report.html") == 2
    assert "#verdicts" not in Page(render_sweep(sweep)).values("href")


def test_a_sweep_shows_published_values_beside_its_own(sweep):
    values = {"none": {"LPC": 0.32}, "all": {"LPC": 0.17, "gFID": 1.86}, "late": {"LPC": 0.2}}
    table = paper_table("Table 1 of a paper", values, sweep.variants, sweep.members)
    text = Page(render_sweep(replace(sweep, paper=table))).text
    # LPC is 0.105 times 2.0 and 2.1 of `none`
    assert "none 0.32 0.215 ± 0.005" in text
    assert "late 0.20 not run – not run" in text  # noqa: RUF001
    assert "Table 1 of a paper" in text
    assert "gFD instead of gFID" in text
    assert all(note in text for note in table.notes)
    other = metrics()
    for found in other:
        found["protocol"] = {**found["protocol"], "count": 7}
    marked = [*sweep.members, MemberMetrics("late", 0, other)]
    table = paper_table("Table 1 of a paper", values, sweep.variants, marked)
    text = Page(render_sweep(replace(sweep, paper=table))).text
    assert "values with different numbers do not compare" in text


def test_sweep_without_finished_members():
    page = Page(render_sweep(SweepContent(name="empty", members=[])))
    assert "Comparison of 0 variants" in page.text
    assert "table" not in page.tags


def test_durations():
    assert [duration(s) for s in (0.04, 9.96, 42.4, 59.7, 185, 3599.6, 7621)] == [
        *("0.0 s", "10.0 s", "42 s", "1 min 00 s", "3 min 05 s", "1 h 00 min", "2 h 07 min"),
    ]
