"""Values side by side: those that compare share a line, the others have a number and a reason."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pae_framework.report.comparing import are_comparable
from pae_framework.report.metrics import fixed
from pae_framework.report.side_by_side import Compared, side_by_side

PROTOCOL = {"guidance": 1.5, "count": 50, "sample_seed": 0}


def metric(value, name="generation/fd", label="gFD", higher=False, at=None, **protocol):
    return {
        "name": name,
        "label": label,
        "value": value,
        "higher_is_better": higher,
        "at": at or {},
        "protocol": {**PROTOCOL, **protocol},
    }


def run(name, *metrics):
    return Compared(name, {name: metrics})


def table(*columns):
    lines, _ = side_by_side(columns)
    return [
        (line.heading, line.at, [None if cell is None else cell.text for cell in line.cells])
        for line in lines
    ]


def test_comparable_values_share_a_line():
    assert table(run("a", metric(1.25)), run("b", metric(2.5))) == [
        ("gFD ↓", "", ["1.250", "2.500"]),
    ]


def test_others_have_lines_of_their_own_with_a_number_and_the_reason():
    columns = (
        run("a", metric(1.0)),
        run("b", metric(2.0, guidance=1.0)),
        run("c", metric(3.0)),
    )
    assert table(*columns) == [
        ("gFD ↓ [1]", "", ["1.000", None, "3.000"]),
        ("gFD ↓ [2]", "", [None, "2.000", None]),
    ]
    _, (reason,) = side_by_side(columns)
    assert reason.headings == ("gFD",)
    assert reason.differs == {"guidance": ["1.5", "1"]}


def test_metrics_with_one_reason_are_told_together():
    psnr = {"name": "reconstruction/psnr", "label": "PSNR", "higher": True}
    columns = (
        run("a", metric(1.0), metric(20.0, **psnr)),
        run("b", metric(1.0, count=40), metric(21.0, count=40, **psnr)),
    )
    _, (reason,) = side_by_side(columns)
    assert set(reason.headings) == {"gFD", "PSNR"}


def test_a_difference_of_several_metrics_is_told_once():
    psnr = {"name": "reconstruction/psnr", "label": "PSNR", "higher": True}
    columns = (
        run("a", metric(1.0, guidance=1.5), metric(20.0, **psnr)),
        run("b", metric(1.0, guidance=1.0, count=40), metric(21.0, count=40, **psnr)),
    )
    _, reasons = side_by_side(columns)
    told = [(key, set(reason.headings)) for reason in reasons for key in reason.differs]
    assert sorted(told) == [("count", {"gFD", "PSNR"}), ("guidance", {"gFD"})]


def test_networks_of_each_run_are_told_in_words_once():
    """rFD and gFD have features of different networks in each run."""
    networks = {"extractor_seed": 0, "extractor_sha256": "a"}
    others = {"extractor_seed": 1, "extractor_sha256": "b"}
    rfd = {"name": "reconstruction/fd_small_cnn", "label": "rFD"}
    columns = (
        run("a", metric(1.0, **networks), metric(1.0, **rfd, **networks)),
        run("b", metric(1.0, **others), metric(1.0, **rfd, **{**others, "extractor_sha256": "c"})),
    )
    _, reasons = side_by_side(columns)
    assert [set(reason.headings) for reason in reasons if reason.shown] == [{"gFD", "rFD"}]
    assert sum(len(reason.words) for reason in reasons) == 1
    digests = [reason.differs.get("extractor_sha256", ()) for reason in reasons]
    keys = sorted(text for texts in digests for text in texts)
    assert keys == ["a", "a", "b", "c"]


def test_features_of_another_network_are_another_metric():
    lines, (reason,) = side_by_side(
        [
            run("a", metric(1.0, name="generation/fd_x")),
            run("b", metric(1.0, name="generation/fd_y")),
        ]
    )
    assert [line.mark for line in lines] == [1, 2]
    assert reason.differs == {"metric": ["generation/fd_x", "generation/fd_y"]}


def test_two_such_metrics_of_one_run():
    found = table(run("a", metric(1.0, name="generation/x"), metric(2.0, name="generation/y")))
    assert [(heading, cells) for heading, _, cells in found] == [
        ("gFD ↓ [1]", ["1.000"]),
        ("gFD ↓ [2]", ["2.000"]),
    ]


def test_other_seeds_share_a_line_and_are_told():
    lines, reasons = side_by_side([run("a", metric(1.0)), run("b", metric(2.0, sample_seed=5))])
    (line,) = lines
    assert reasons == []
    assert line.mark is None
    assert line.seeds == "sample_seed 0 | 5"


@pytest.mark.parametrize("protocol", [None, {}])
def test_values_without_a_protocol_share_no_line(protocol):
    unknown = {**metric(1.0), "protocol": protocol}
    lines, (reason,) = side_by_side([run("a", unknown), run("b", unknown)])
    assert [line.mark for line in lines] == [1, 2]
    assert reason.differs == {"protocol": ["not stated", "not stated"]}


def test_last_weights_compare_after_trainings_of_any_length():
    def at(step):
        return {"generator_step": step}

    assert table(
        run("a", metric(4.0, at=at(100)), metric(3.0, at=at(200))),
        run("b", metric(5.0, at=at(100)), metric(2.0, at=at(400))),
    ) == [
        ("gFD ↓", "generator step 100", ["4.000", "5.000"]),
        ("gFD ↓", "last weights", ["3.000", "2.000"]),
    ]


# --- several seeds --------------------------------------------------------------------------------


def seeds(name, *values, **protocol):
    return Compared(name, {f"seed{i}": [metric(x, **protocol)] for i, x in enumerate(values)})


def test_seeds_show_mean_half_range_number_and_the_best_value_as_such():
    # (1 + 2 + 6) / 3 = 3; (6 - 1) / 2 = 2.5
    assert table(seeds("a", 1.0, 2.0, 6.0)) == [("gFD ↓", "", ["3.000 ± 2.500 (n=3, min 1.000)"])]
    higher = Compared("a", {str(i): [metric(x, higher=True)] for i, x in enumerate((1.0, 3.0))})
    assert table(higher) == [("gFD ↑", "", ["2.000 ± 1.000 (n=2, max 3.000)"])]


def test_all_values_of_the_seeds_are_kept():
    ((line,), _) = side_by_side([seeds("a", 1.0, 2.0, 6.0)])
    assert [(value.run, value.metric["value"]) for value in line.cells[0].values] == [
        ("seed0", 1.0),
        ("seed1", 2.0),
        ("seed2", 6.0),
    ]


def with_own_extractors(name, *digests, value=1.0):
    """Runs that each trained its own extractor, whose weights depend on the seed."""
    return Compared(
        name,
        {
            f"seed{i}": [metric(value, extractor_digest=digest, extractor_seed=i)]
            for i, digest in enumerate(digests)
        },
    )


def test_seeds_with_extractors_of_their_own_are_one_column_and_compare_pair_by_pair():
    same = with_own_extractors("a", "e0", "e1"), with_own_extractors("b", "e0", "e1", value=2.0)
    assert table(*same) == [
        ("gFD ↓", "", ["1.000 ± 0.000 (n=2, min 1.000)", "2.000 ± 0.000 (n=2, min 2.000)"])
    ]
    other = with_own_extractors("a", "e0", "e1"), with_own_extractors("b", "e0", "e9")
    lines, (reason,) = side_by_side(other)
    assert [line.mark for line in lines] == [1, 2]
    assert reason.differs == {"extractor_digest": ["e0, e1", "e0, e9"]}


def test_seeds_that_differ_in_more_are_not_averaged():
    mixed = Compared("a", {"seed0": [metric(1.0)], "seed1": [metric(3.0, guidance=1.0)]})
    assert [cells for _, _, cells in table(mixed)] == [["1.000"], ["3.000"]]


@pytest.mark.parametrize("value", [None, math.inf, math.nan])
def test_values_that_are_no_numbers_are_shown_as_such(value):
    ((_, _, (text,)),) = table(run("a", metric(value)))
    assert text in (fixed(None, 0), "inf", "nan")


PROTOCOLS = st.fixed_dictionaries(
    {"guidance": st.sampled_from([1, 2]), "sample_seed": st.integers(0, 3)},
    optional={"reference": st.sampled_from("ab"), "reference_digest": st.sampled_from("xy")},
)


@given(st.lists(PROTOCOLS, min_size=1, max_size=6))
def test_two_runs_share_a_line_exactly_if_their_protocols_compare(protocols):
    columns = [
        Compared(str(i), {"run": [{**metric(1.0), "protocol": protocol}]})
        for i, protocol in enumerate(protocols)
    ]
    lines, _ = side_by_side(columns)
    for i, one in enumerate(protocols):
        for k, other in enumerate(protocols):
            together = any(line.cells[i] and line.cells[k] for line in lines)
            assert together == are_comparable(one, other)
    assert sum(cell is not None for line in lines for cell in line.cells) == len(protocols)
