"""`pae compare`: runs, sweeps, samples and cards side by side, with the reasons."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from card_runs import PROTOCOL, finished_run, metric, sweep_of

from pae_framework.runs.cards import make_card
from pae_framework.system.files import file_digest

GUIDED = {**PROTOCOL, "guidance": 1.5}


def lines(comparison):
    return {
        (line["label"], line["mark"]): [cell and cell["mean"] for cell in line["cells"]]
        for line in comparison["lines"]
    }


def test_two_runs(pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=20.0)])
    finished_run(tmp_path / "b", [metric(value=22.0)], {"tokenizer.train.lr": 0.5})
    found = pae("compare", "a", "b", "--json").ok().json
    assert found["comparison"] == 1
    assert lines(found) == {("PSNR", None): [20.0, 22.0]}
    first, second = found["columns"]
    assert first["recipe_changes"] == []
    assert len(second["recipe_changes"]) == 1
    assert re.match(r"tokenizer\.train\.lr \(.* -> 0\.5\)", second["recipe_changes"][0])
    out = pae("compare", "a", "b").ok().out
    assert re.search(r"PSNR ↑ +20\.00 +22\.00", out)
    assert "tokenizer.train.lr" in out


def test_what_does_not_compare_is_marked_with_the_reason(pae, tmp_path):
    finished_run(tmp_path / "a", [metric("generation/fd_small_cnn", 2.0, protocol=GUIDED)])
    other = {**GUIDED, "guidance": 1.0}
    finished_run(tmp_path / "b", [metric("generation/fd_small_cnn", 3.0, protocol=other)])
    found = pae("compare", "a", "b", "--json").ok().json
    assert lines(found) == {("gFD", 1): [2.0, None], ("gFD", 2): [None, 3.0]}
    assert found["not_comparable"] == [
        {"metrics": ["gFD"], "differs": {"guidance": ["1.5", "1"]}, "words": []}
    ]
    assert "guidance: [1] 1.5  [2] 1" in pae("compare", "a", "b").ok().out


def test_the_explanation_has_lines_of_80_columns_and_no_reason_twice(pae, tmp_path):
    metrics = [metric(f"reconstruction/metric_{i}", label=f"metric {i}") for i in range(12)]
    other = {**PROTOCOL, "count": 25, "precision": "bfloat16"}
    finished_run(tmp_path / "a", metrics)
    changes = {"tokenizer.train.lr": 0.5, "generator.train.steps": 7, "tokenizer.train.seed": 5}
    finished_run(tmp_path / "b", [{**m, "protocol": other} for m in metrics], changes)
    out = pae("compare", "a", "b").ok().out
    assert max(map(len, out.splitlines())) <= 80
    assert (out.count("count: [1] 24  [2] 25"), out.count("precision:")) == (1, 1)
    _, explanation = out.split("compare:")
    assert [len(re.findall(rf"metric\s+{i}\b", explanation)) for i in range(12)] == [1] * 12


SEEDS = [
    {"seed": 1},
    {"generator.train.seed": 3},
    {"sample.seed": 3},
    {"seed": 1, "tokenizer.train.seed": 4},
]


@pytest.mark.parametrize("change", SEEDS, ids=lambda change: "+".join(change))
def test_runs_that_differ_only_by_seeds_are_one_column(change, pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=20.0)])
    finished_run(tmp_path / "b", [metric(value=22.0)], change)
    found = pae("compare", "a", "b", "--json").ok().json
    (column,) = found["columns"]
    assert len(column["seeds"]) == 2
    for key, seed in change.items():
        assert str(seed) in column["seeds"][1]
        assert (key in column["seeds"][1]) == (len(change) > 1 or key not in change)
    (cell,) = found["lines"][0]["cells"]
    assert [value["value"] for value in cell["values"]] == [20.0, 22.0]
    expected = {"count": 2, "mean": 21.0, "half_range": 1.0, "min": 20.0, "max": 22.0}
    assert {key: cell[key] for key in expected} == expected
    assert "21.00 ± 1.00 (n=2, max 22.00)" in pae("compare", "a", "b").ok().out


@pytest.mark.parametrize("change", [{"data.train.seed": 5}, {"seed": 1, "tokenizer.train.lr": 0.5}])
def test_runs_that_differ_in_more_are_not(change, pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=20.0)])
    finished_run(tmp_path / "b", [metric(value=22.0)], change)
    assert len(pae("compare", "a", "b", "--json").ok().json["columns"]) == 2


def own_extractor(value, seed, digest):
    own = {**PROTOCOL, "extractor_digest": digest, "extractor_seed": seed}
    return [metric("generation/fd_small_cnn", value, protocol=own)]


def test_extractors_that_each_run_trained_itself_are_told_in_words(pae, tmp_path):
    finished_run(tmp_path / "a", own_extractor(2.0, 0, "5d1a"))
    finished_run(tmp_path / "b", own_extractor(3.0, 0, "77c0"), {"tokenizer.train.lr": 0.5})
    out = pae("compare", "a", "b", "--out", "page.html").ok().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (out, page):
        assert "each run trained its own extractor" in text
        assert "5d1a" not in text
    (entry,) = pae("compare", "a", "b", "--json").ok().json["not_comparable"]
    assert entry["differs"] == {"extractor_digest": ["5d1a", "77c0"]}
    assert len(entry["words"]) == 1


@pytest.mark.parametrize(("digest", "warned"), [("77c0", True), ("5d1a", False)])
def test_seeds_are_not_pooled_silently_over_extractors_of_their_own(digest, warned, pae, tmp_path):
    finished_run(tmp_path / "a", own_extractor(2.0, 0, "5d1a"))
    finished_run(tmp_path / "b", own_extractor(3.0, 1, digest), {"seed": 1})
    result = pae("compare", "a", "b", "--json").ok()
    assert len(result.json["columns"]) == 1
    assert any("own extractor" in text for text in result.json["cautions"]) == warned
    assert ("own extractor" in result.err) == warned


@pytest.mark.parametrize(
    ("changes", "apart"),
    [
        ({"seed": 1, "evaluate.interpolation": {}}, True),
        ({"seed": 1, "evaluate.manifold.images": 7}, True),
        ({"seed": 1, "tokenizer.train.lr": 0.5, "evaluate.interpolation": {}}, False),
    ],
    ids=["one evaluator more", "another setting", "more differs"],
)
def test_it_is_told_which_evaluators_keep_seeds_apart(changes, apart, pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=20.0)])
    finished_run(tmp_path / "b", [metric(value=22.0)], changes)
    _, second = pae("compare", "a", "b", "--json").ok().json["columns"]
    assert (second["apart"] is not None) == apart
    if apart:
        assert "evaluate." in second["apart"]
        assert second["apart"] in " ".join(pae("compare", "a", "b").ok().out.split())


def test_the_same_recipe_and_seed_twice_is_not_two_seeds(pae, tmp_path):
    for name in "ab":
        finished_run(tmp_path / name, [metric()])
    assert len(pae("compare", "a", "b", "--json").ok().json["columns"]) == 2
    assert "does not differ" in pae("compare", "a", "b").ok().out


def test_the_members_of_a_sweep_by_variant(pae, tmp_path):
    values = {"x-seed0": 20.0, "x-seed1": 22.0}
    runs = {name: [metric(value=value)] for name, value in values.items()}
    sweep_of(tmp_path / "s", runs, **{"x-seed1": 1})
    (column,) = pae("compare", "s", "--json").ok().json["columns"]
    assert (column["name"], column["seeds"]) == ("x", ["0", "1"])
    assert [card["name"] for card in column["cards"]] == ["x-seed0", "x-seed1"]


def test_runs_of_one_name_are_told_apart(pae, tmp_path):
    for folder in ("one", "two"):
        finished_run(tmp_path / folder / "a", [metric()])
    columns = pae("compare", "one/a", "two/a", "--json").ok().json["columns"]
    assert [column["name"] for column in columns] == ["one/a", "two/a"]


def test_cards_and_samples_beside_a_run(pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=20.0)])
    np.savez(tmp_path / "s.npz", np.zeros(1))
    subject = {"samples_digest": f"xxh3 {file_digest(tmp_path / 's.npz')}"}
    for name, value in (("s", 21.0), ("theirs", 22.0)):
        card = make_card({"samples": name}, [metric(value=value, subject=subject)], {})
        (tmp_path / f"{name}.json").write_text(json.dumps(card))
    found = pae("compare", "a", "s.npz", "theirs.json", "--json").ok().json
    assert lines(found) == {("PSNR", None): [20.0, 21.0, 22.0]}
    assert [column["recipe_changes"] for column in found["columns"]] == [[], None, None]


def test_a_recipe_that_no_longer_loads_is_named_and_the_metrics_are_shown(pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=20.0)])
    finished_run(tmp_path / "b", [metric(value=22.0)], {"generator.use": "gone"})
    result = pae("compare", "a", "b", "--json").ok()
    assert lines(result.json) == {("PSNR", None): [20.0, 22.0]}
    assert "gone" in result.err


def test_the_page(pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=20.0), metric("x/<y>", label="<b>")])
    other = metric(value=22.0, protocol={**PROTOCOL, "count": 7})
    finished_run(tmp_path / "b", [other], {"tokenizer.train.lr": 0.5})
    assert "page.html" in pae("compare", "a", "b", "--out", "page.html").ok().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for word in ("20.00", "22.00", "[1]", "[2]", "count", "tokenizer.train.lr", "&lt;b&gt;"):
        assert word in page
    assert "<b>" not in page
    assert not re.search(r"https?://|<script", page)


@pytest.mark.parametrize(
    "words",
    [["a", "a"], ["a", "./a"], ["c.json", "c.json"], ["a", "nothing"], ["a", "--out", "folder"]],
)
def test_wrong_usage(words, pae, tmp_path):
    finished_run(tmp_path / "a", [metric()])
    (tmp_path / "folder").mkdir()
    (tmp_path / "c.json").write_text(json.dumps(make_card({}, [metric()], {})))
    assert Path(words[-1]).stem in pae("compare", *words).fails(2).err


def test_a_sweep_and_one_of_its_members(pae, tmp_path):
    sweep_of(tmp_path / "s", {"x-seed0": [metric()]})
    member = "s/members/x-seed0"
    assert "x-seed0" in pae("compare", "s", member).fails(2).err


def test_cards_of_one_sweep_in_two_files_are_told_apart(pae, tmp_path):
    sweep_of(tmp_path / "s", {"x": [metric()], "y": [metric()]})
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(pae("cards", "s", "--json").ok().out)
    columns = pae("compare", "one.json", "two.json", "--json").ok().json["columns"]
    names = [f"{file}: {member}" for file in ("one.json", "two.json") for member in "xy"]
    assert [column["name"] for column in columns] == names


def test_it_needs_no_torch(pae, tmp_path):
    finished_run(tmp_path / "a", [metric()])
    code = (
        "import sys; sys.argv = ['pae', 'compare', 'a', '--json']\n"
        "from pae_framework.cli.app import _run_command\n"
        "_run_command(); sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
