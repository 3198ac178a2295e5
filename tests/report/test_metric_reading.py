"""Metrics as a run's JSON holds them: order, wording, series."""

from pae_framework.report.metrics import (
    EVALUATIONS,
    GENERATOR_STEPS,
    at_of,
    condition,
    decimals_for,
    fixed,
    flat,
    headline,
    ordered,
    readable,
    series_along,
)


def metric(name, label, value=1.0, **at):
    return {
        "name": name,
        "label": label,
        "value": value,
        "std": None,
        "higher_is_better": False,
        "at": at,
        "protocol": {},
    }


def test_metrics_are_read_from_reconstruction_over_latents_to_generation_then_what_plugins_add():
    names = ["zoo/own", "few_steps/fd_x", "generation/fd_x", "manifold/ssc", "reconstruction/psnr"]
    labels = ["own", "gFD", "gFD", "SSC", "PSNR"]
    found = ordered(map(metric, names, labels))
    assert [m["name"] for m in found] == names[::-1]


def test_positions_of_a_metric_are_sorted_as_numbers():
    steps = [1000, 250, 50]
    found = ordered(metric("generation/fd", "gFD", generator_step=step) for step in steps)
    assert [m["at"]["generator_step"] for m in found] == [50, 250, 1000]


def test_conditions_in_words():
    assert condition(at_of(metric("a/b", "x"))) == ""
    assert condition(at_of(metric("a/b", "x", generator_step=250))) == "generator step 250"
    assert condition(at_of(metric("a/b", "x", steps=1))) == "1 sampling step"
    assert condition(at_of(metric("a/b", "x", steps=5, evaluations=5))) == "5 sampling steps"
    heun = metric("a/b", "x", steps=5, evaluations=10)
    assert condition(at_of(heun)) == "5 sampling steps, evaluations 10"
    assert condition(at_of(metric("a/b", "x", top_k=3, rho=0.1))) == "rho 0.1, top k 3"


def test_a_series_has_two_or_more_positions_under_equal_conditions():
    metrics = [
        metric("generation/fd", "gFD", 2.0, generator_step=500),
        metric("generation/fd", "gFD", 4.0, generator_step=250),
        metric("generation/other", "other", 9.0, generator_step=250),
        metric("few_steps/fd", "gFD", 3.0, steps=5, evaluations=10),
        metric("few_steps/fd", "gFD", 1.0, steps=10, evaluations=20),
        metric("reconstruction/psnr", "PSNR", 20.0),
    ]
    (training,) = series_along(metrics, GENERATOR_STEPS)
    assert [(at, m["value"]) for at, m in training.points] == [(250.0, 4.0), (500.0, 2.0)]
    (few,) = series_along(metrics, EVALUATIONS)
    assert [(at, m["value"]) for at, m in few.points] == [(10.0, 3.0), (20.0, 1.0)]


def test_series_under_other_conditions_are_separate_and_named_by_them():
    metrics = [
        metric("generation/fd", "gFD", generator_step=step, guidance=scale)
        for step in (1, 2)
        for scale in (1.0, 1.5)
    ]
    labels = [found.label for found in series_along(metrics, GENERATOR_STEPS)]
    assert labels == ["gFD (guidance 1)", "gFD (guidance 1.5)"]


def test_the_headline_is_the_last_weights_and_the_fewest_sampling_steps():
    metrics = [
        metric("generation/fd", "gFD", generator_step=250),
        metric("generation/fd", "gFD", generator_step=1000),
        metric("few_steps/fd", "gFD", steps=50),
        metric("few_steps/fd", "gFD", steps=5),
        metric("manifold/ssc", "SSC"),
        metric("manifold/ssc", "SSC", sigma=0.5),
    ]
    places = [m["at"] for m in headline(metrics)]
    assert places == [{}, {"generator_step": 1000}, {"steps": 5}]


def test_the_largest_of_a_column_decides_its_decimals():
    assert decimals_for([22.561, 9.1]) == 2
    assert decimals_for([1.8731]) == 3
    assert decimals_for([0.2841, 0.05]) == 3
    assert decimals_for([0.04612]) == 4
    assert decimals_for([12345.6]) == 0
    assert decimals_for([None, float("nan"), 0.0]) == 3


def test_a_metric_that_is_missing_or_not_a_number_is_shown_as_that():
    assert fixed(None, 3) == "–"  # noqa: RUF001
    assert fixed(float("nan"), 3) == "nan"
    assert fixed(float("inf"), 3) == "inf"


def test_protocol_values_in_words():
    protocol = {"solver": "euler", "guidance": {"scale": 1.5, "interval": [0.0, 1.0]}, "ema": True}
    assert flat(protocol) == {
        "solver": "euler",
        "guidance.scale": "1.5",
        "guidance.interval": "0, 1",
        "ema": "yes",
    }
    assert readable(None) == "none"
    assert readable([{"a": 1}]) == "a 1"


def test_a_variant_of_the_samples_is_not_the_headline():
    metrics = [
        metric("generation/fd", "gFD", 8.0, generator_step=500, samples="unguided"),
        metric("generation/fd", "gFD", 9.0, generator_step=100),
        metric("adm/fid", "FID", 9.0, convention="adm", samples="unguided"),
        metric("adm/fid", "FID", 5.0, convention="adm"),
    ]
    assert [m["value"] for m in headline(metrics)] == [9.0, 5.0]
    assert condition(at_of(metrics[0])) == "generator step 500, unguided samples"


def test_a_smaller_protocol_is_not_the_headline():
    small = {"generator_step": 500, "protocol": "convergence"}
    metrics = [
        metric("generation/fd", "gFD", 8.0, **small),
        metric("generation/fd", "gFD", 4.0, generator_step=500),
        metric("adm/fid", "FID", 9.0, convention="adm", **small),
        metric("adm/fid", "FID", 5.0, convention="adm"),
    ]
    assert [m["value"] for m in headline(metrics)] == [4.0, 5.0]
    assert condition(at_of(metrics[0])) == "generator step 500, protocol convergence"
