"""The rules of the verdict, on numbers. docs/concepts.md states them."""

import json
from dataclasses import asdict
from html import unescape
from pathlib import Path

import pytest

from pae_framework.report.content import ReportContent
from pae_framework.report.html import render
from pae_framework.report.side_by_side import Compared, side_by_side
from pae_framework.report.table import (
    comparison_table,
    result_rows,
    results_by_group,
    sweep_members,
)
from pae_framework.report.text import verdict_lines
from pae_framework.report.verdict import judge

OLD_RUN = Path(__file__).parents[1] / "guard/old_run/finished/evaluate/results.json"
COUNT = 100
GOOD = {
    **{"ssc": 0.30, "ssc_random": 0.05, "ssc_encoder": 0.40, "ssc_pixels": 0.15},
    **{"lpc": 0.15, "lpc_other": 0.70, "lpc_pixels": 0.30},
    **{"gsq": 0.60, "gsq_random": 0.10, "gsq_encoder": 0.80, "gsq_pixels": 0.20},
    **{"erank": 0.50, "erank_random": 0.99, "erank_pixels": 0.30},
    **{"distance_own": 0.20, "distance_other": 0.75, "distance_images": 0.80},
}
"""Two standard errors are 0.02 for SSC and the distances (deviation 0.1), 0.1 for GSQ."""
CHANNELS = 16


def metric(key: str, value: float, **changes) -> dict:
    of_run = key in ("ssc", "lpc", "gsq", "erank")
    encoder = {"encoder": "tiny"}
    subject = {"tokenizer": "t"} if of_run else {"reference": "r"}
    return {
        "name": f"manifold/{key}",
        "label": key.upper(),
        "value": value,
        "higher_is_better": not key.startswith(("lpc", "distance")),
        "std": None if of_run or "encoder" in key else 0.1,
        "protocol": {"count": COUNT, "of_classes": 10} | changes,
        "subject": (encoder if "encoder" in key else subject) | {"channels": CHANNELS},
    }


def metrics(**values: float | None) -> list[dict]:
    """Those of GOOD with changes; None leaves one out."""
    chosen = {**GOOD, **values}
    return [metric(key, value) for key, value in chosen.items() if value is not None]


def grade(label: str, **values: float | None) -> str:
    return {found.label: found.grade for found in judge(metrics(**values)).diagnoses}[label]


def without(*prefixes: str) -> dict[str, None]:
    return {key: None for key in GOOD if key.startswith(prefixes)}


# --- one diagnostic -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "values", "expected"),
    [
        # Half-way between random latents (0.05) and the encoder (0.40) is 0.225.
        ("SSC", {"ssc": 0.246}, "good"),
        ("SSC", {"ssc": 0.244}, "unclear"),
        ("SSC", {"ssc": 0.206}, "unclear"),
        ("SSC", {"ssc": 0.16}, "poor"),
        ("SSC", {"ssc": 0.90}, "good"),
        # Pixels contradict: better than half-way, but worse than they are, and the reverse.
        ("SSC", {"ssc": 0.30, "ssc_pixels": 0.33}, "unclear"),
        ("SSC", {"ssc": 0.30, "ssc_pixels": 0.31}, "unclear"),  # no better than pixels
        ("SSC", {"ssc": 0.16, "ssc_pixels": 0.13}, "unclear"),
        # The encoder is no better than random latents: nothing can be said.
        ("SSC", {"ssc": 0.30, "ssc_encoder": 0.06}, "unclear"),
        ("SSC", {"ssc": 0.30, "ssc_encoder": 0.01}, "unclear"),
        # Half-way between no change and another latent (0.70) is 0.35.
        ("LPC", {"lpc": 0.26}, "good"),
        ("LPC", {"lpc": 0.34, "lpc_pixels": 0.5}, "unclear"),
        ("LPC", {"lpc": 0.38}, "poor"),
        ("LPC", {"lpc": 0.30, "lpc_pixels": 0.27}, "unclear"),
        # Decoded images of different latents are closer to one image than to different ones.
        ("LPC", {"lpc": 0.0, "lpc_other": 0.0}, "unclear"),
        ("LPC", {"lpc": 0.01, "lpc_other": 0.35}, "unclear"),
        # Half-way is 0.45; with 100 images GSQ may be off by 0.1.
        ("GSQ", {"gsq": 0.56}, "good"),
        ("GSQ", {"gsq": 0.54}, "unclear"),
        ("GSQ", {"gsq": 0.34, "gsq_pixels": 0.40}, "poor"),
        ("GSQ", {"gsq": 0.15}, "poor"),
        # Two of 16 directions.
        ("eRank", {"erank": 2.1 / 16}, "no collapse"),
        ("eRank", {"erank": 1.9 / 16}, "poor"),
        ("eRank", {"erank": 1.9 / 16, "erank_random": 1.9 / 16}, "unclear"),
    ],
)
def test_grades(label, values, expected):
    assert grade(label, **values) == expected


@pytest.mark.parametrize(
    ("ssc", "expected"),
    [  # random latents 0.05, pixels 0.15, error 0.02
        (0.171, "good"),
        (0.169, "unclear"),  # within error of pixels
        (0.071, "unclear"),
        (0.069, "poor"),  # within error of random latents
        (0.01, "poor"),
    ],
)
def test_without_an_encoder_pixels_and_random_latents_decide(ssc, expected):
    assert grade("SSC", ssc=ssc, ssc_encoder=None) == expected


def test_without_an_encoder_an_unknown_error_is_not_zero():
    values = {"gsq_encoder": None, "gsq": 0.9}
    one = [entry | {"protocol": entry["protocol"] | {"count": 1}} for entry in metrics(**values)]
    assert {found.label: found.grade for found in judge(one).diagnoses}["GSQ"] == "unclear"


@pytest.mark.parametrize("missing", ["ssc_random", "ssc_pixels"])
def test_without_a_reference_nothing_is_said(missing):
    assert grade("SSC", **{missing: None}) == "unclear"


def test_worse_features_than_noise_are_not_called_equal():
    reasons = {
        value: judge(metrics(ssc_encoder=value)).diagnoses[0].reason for value in (0.02, 0.04, 0.06)
    }
    assert "random latents are better than the encoder's features" in reasons[0.02]
    assert "do not differ" in reasons[0.04]
    assert "do not differ" in reasons[0.06]


def test_erank_has_no_direction():
    (erank,) = [found for found in judge(metrics()).diagnoses if found.label == "eRank"]
    assert erank.higher_is_better is None
    assert [place.label for place in erank.scale] == [
        *("one direction", "components of pixels", "this run", "random latents")
    ]
    (line,) = [line for line in verdict_lines(judge(metrics())) if "eRank" in line]
    assert not set("↑↓") & set(line)
    page = unescape(render(ReportContent("run", metrics=[], verdict=judge(metrics()))))
    card = page[page.index("<strong>eRank</strong>") :].partition("</header>")[0]
    assert "is better" not in card


@pytest.mark.parametrize("label", ["SSC", "LPC", "GSQ"])
@pytest.mark.parametrize(
    "unknown", [{"count": 1}, {"count": None}], ids=["one image", "unknown count"]
)
def test_an_unknown_error_is_not_zero(label, unknown):
    verdict = judge([metric(key, value, **unknown) for key, value in GOOD.items()])
    assert verdict.answer == "undecided"
    assert {x.label: x.grade for x in verdict.diagnoses}[label] == "unclear"
    (caveat,) = [text for text in verdict.caveats if label in text]
    assert not set("0123456789") & set(caveat)


@pytest.mark.parametrize("label", ["SSC", "LPC"])
@pytest.mark.parametrize("std", [None, float("nan")])
def test_without_a_deviation_the_error_is_unknown(label, std):
    found = [each | {"std": std} for each in metrics()]
    assert {x.label: x.grade for x in judge(found).diagnoses}[label] == "unclear"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("key", ["ssc", "lpc", "gsq"])
def test_a_value_that_is_not_finite_was_not_measured(key, value):
    verdict = judge(
        [
            each | ({"value": value} if each["name"] == f"manifold/{key}" else {})
            for each in metrics()
        ]
    )
    assert key.upper() not in {found.label for found in verdict.diagnoses}
    assert any(key.upper() in text and "not measured" in text for text in verdict.caveats)


@pytest.mark.parametrize("key", ["ssc_random", "lpc_other", "gsq_pixels"])
def test_a_reference_that_is_not_finite_was_not_measured(key):
    found = {x.label: x for x in judge(metrics(**{key: float("nan")})).diagnoses}[key[:3].upper()]
    assert found.grade == "unclear"
    assert "no reference rows" in found.reason


def test_a_scale_goes_from_the_worst_to_the_best():
    found = {x.label: [place.text for place in x.scale] for x in judge(metrics()).diagnoses}
    assert found["SSC"] == ["0.0500", "0.150", "0.300", "0.400"]
    assert found["LPC"] == ["0.700", "0.300", "0.150"]


# --- the answer -----------------------------------------------------------------------------------

COLLAPSED = {"erank": 1.1 / CHANNELS}
SSC_POOR, LPC_POOR, GSQ_POOR = {"ssc": 0.05}, {"lpc": 0.6}, {"gsq": 0.1}


@pytest.mark.parametrize(
    ("values", "answer", "claims"),
    [
        ({}, "yes", ["spatially coherent, locally continuous and semantically organized"]),
        (SSC_POOR, "undecided", ["locally continuous and semantically", "not spatially"]),
        (SSC_POOR | LPC_POOR, "undecided", ["are semantically organized, but not"]),
        (
            SSC_POOR | LPC_POOR | GSQ_POOR,
            "no",
            ["neither spatially coherent, locally continuous nor semantically organized"],
        ),
        ({"gsq": 0.5}, "undecided", ["whether they are semantically organized is unclear"]),
        (COLLAPSED, "undecided", ["fewer than two directions"]),
        (
            COLLAPSED | SSC_POOR | {"lpc": 0.35, "gsq": 0.5},
            "no",
            ["are not spatially coherent", "fewer than two directions"],
        ),
        ({"distance_own": 0.7}, "no", ["hardly closer to their own image"]),
        ({"distance_own": 0.375}, "undecided", ["whether they carry their images is unclear"]),
        (without("ssc"), "yes", ["locally continuous and semantically organized"]),
        (without("ssc", "gsq"), "undecided", ["locally continuous", "only one property"]),
        (without("ssc") | GSQ_POOR | LPC_POOR, "no", ["neither"]),
        (without("ssc", "gsq") | LPC_POOR, "undecided", ["not locally continuous", "only one"]),
        (
            without("lpc", "distance"),
            "undecided",
            ["spatially coherent and semantically", "whether they carry their images was not"],
        ),
        # Of the distance to another image, 0.75: 0.8 is hardly closer, 1/2 is where it is good.
        ({"distance_own": 0.625}, "no", ["hardly closer to their own image"]),
        ({"distance_own": 0.615}, "undecided", ["whether they carry their images is unclear"]),
        ({"distance_own": 0.42}, "undecided", ["whether they carry their images is unclear"]),
        ({"distance_own": 0.35}, "yes", []),
    ],
)
def test_answers(values, answer, claims):
    verdict = judge(metrics(**values))
    assert verdict.answer == answer
    assert verdict.sentence.startswith(f"{answer.capitalize()}: ")
    for claim in claims:
        assert claim in verdict.sentence


@pytest.mark.parametrize("prefixes", [("ssc", "lpc", "gsq"), tuple(GOOD)])
def test_there_is_no_verdict_without_diagnostics(prefixes):
    assert judge(metrics(**without(*prefixes))) is None
    assert judge([]) is None


def test_a_smoke_run_is_undecided():
    verdict = judge(metrics(), smoke=True)
    assert verdict.answer == "undecided"
    assert "smoke" in verdict.sentence


def test_an_earlier_run_lacks_references():
    verdict = judge(json.loads(OLD_RUN.read_bytes()))
    assert verdict.answer == "undecided"
    assert "`pae evaluate RUN --again`" in verdict.sentence
    assert {found.grade for found in verdict.diagnoses} == {"unclear"}


# --- caveats --------------------------------------------------------------------------------------


def test_a_verdict_on_everything_has_no_caveat():
    assert judge(metrics()).caveats == ()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (without("ssc"), "masks"),
        (without("lpc"), "LPC"),
        (without("gsq"), "GSQ"),
        ({"lpc": 0.0, "lpc_other": 0.001}, "differ by 0.001, test images by 0.800"),
    ],
)
def test_caveats(values, words):
    (caveat,) = judge(metrics(**values)).caveats
    assert words in caveat


def test_few_images_are_a_caveat_only_where_they_leave_a_question():
    few = [metric(key, value, count=16) for key, value in GOOD.items()]
    verdict = judge(few)
    # GSQ may be off by 1 / 4, SSC by 2 * 0.1 / 4.
    assert [text for text in verdict.caveats if "GSQ may be off by 0.25" in text]
    assert not [text for text in verdict.caveats if "SSC" in text]


@pytest.mark.parametrize("key", ["erank", "ssc_random", "lpc_pixels"])
def test_one_class_is_why_gsq_is_missing(key):
    """Whichever metric has the number of classes."""
    known = {name: {"of_classes": 1} if name == key else {"of_classes": None} for name in GOOD}
    kept = {name: value for name, value in GOOD.items() if not name.startswith("gsq")}
    verdict = judge([metric(name, value, **known[name]) for name, value in kept.items()])
    (caveat,) = verdict.caveats
    assert "GSQ" in caveat
    assert "one class" in caveat


def test_few_images_do_not_show_that_a_decoder_ignores_its_latents():
    # Half-way is 0.325; two standard errors are 0.2 / sqrt(4) = 0.1.
    values = GOOD | {"lpc_other": 0.40, "distance_images": 0.65}
    verdict = judge([metric(key, value, count=4) for key, value in values.items()])
    (lpc,) = [found for found in verdict.diagnoses if found.label == "LPC"]
    assert lpc.grade == "unclear"
    assert "too few images" in lpc.reason
    assert not [text for text in verdict.caveats if "ignores" in text]
    assert [text for text in verdict.caveats if "LPC may be off by 0.10" in text]


def test_an_encoder_with_random_weights_is_no_bound():
    found = metrics()
    for each in found:
        if each["name"].endswith("_encoder"):
            each["subject"]["encoder_settings"] = {"weights": "none"}
    assert any("random weights" in text for text in judge(found).caveats)


# --- the paper ------------------------------------------------------------------------------------

PAPERS = {
    **{"of_classes": 1000, "classes": 100, "image_size": "256 x 256"},
    **{"perceptual": "LPIPS (VGG-16)", "rhos": [0.1, 0.5, 1.0, 2.0]},
}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, {"LPC", "GSQ"}),
        ({"image_size": "64 x 64"}, set()),
        ({"of_classes": 10}, set()),
        ({"perceptual": "perceptual distance of tiny_vit"}, {"GSQ"}),
        ({"rhos": [0.1]}, {"GSQ"}),
        ({"classes": 50}, {"LPC"}),
    ],
)
def test_values_of_the_paper_are_shown_where_the_protocol_is_the_papers(changes, shown):
    found = [metric(key, value, **PAPERS | changes) for key, value in GOOD.items()]
    assert {x.label for x in judge(found).diagnoses if x.published} == shown


# --- where it is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {"ssc": 0.30, "ssc_pixels": 0.5}, without("ssc", "gsq")])
def test_a_terminal_of_80_columns_shows_everything(values):
    verdict = judge(metrics(**values))
    lines = verdict_lines(verdict)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for part in (verdict.question, verdict.sentence, *verdict.caveats):
        assert part in text
    for found in verdict.diagnoses:
        for place in found.scale:
            assert f"{place.label} {place.text}" in text
    assert json.loads(json.dumps(asdict(verdict)))["answer"] == verdict.answer


def test_references_are_in_no_table_of_the_runs_metrics():
    names = {"manifold/ssc", "manifold/lpc", "manifold/gsq", "manifold/erank"}
    own = names | {"manifold/ssc_encoder", "manifold/gsq_encoder"}
    assert {row.name for row in result_rows(metrics())} == own
    assert {row.name for rows in results_by_group(metrics()).values() for row in rows} == own
    members = sweep_members([{"variant": "a", "seed": 0, "metrics": metrics()}])
    assert {column.name for column in comparison_table(members)[0]} == own
    lines, reasons = side_by_side([Compared(run, {run: metrics()}) for run in "ab"])
    assert {f"{line.group}/{line.label.lower()}" for line in lines} == own
    assert not reasons


@pytest.mark.parametrize("values", [{}, {"ssc": 0.30, "ssc_pixels": 0.5}, without("ssc", "gsq")])
def test_a_report_opens_with_the_verdict(values):
    found = metrics(**values)
    verdict = judge(found)
    page = unescape(render(ReportContent("run", metrics=found, verdict=verdict)))
    assert page.index(verdict.sentence) < page.index('class="results"')
    for diagnosis in verdict.diagnoses:
        assert diagnosis.title in page
        assert diagnosis.reason in page
        for place in diagnosis.scale:
            assert f'<th scope="row">{place.label}</th><td class="n">{place.text}</td>' in page
    for caveat in verdict.caveats:
        assert caveat in page


def test_a_report_without_diagnostics_has_no_verdict():
    assert 'id="verdict"' not in render(ReportContent("run", metrics=[]))
