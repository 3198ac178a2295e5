"""`pae cards`: every metric with its protocol, subject and environment."""

import json
import re
import shutil

import numpy as np
import pytest
from card_runs import FINISHED, PROTOCOL, finished_run, metric, sweep_of

from pae_framework.runs import environment
from pae_framework.runs.cards import make_card, open_cards
from pae_framework.runs.record import StageRecord
from pae_framework.system.files import file_digest

KEYS = {"schema", "card", "tool", "of", "metrics", "not_available", "cautions", "environment"}
METRIC = {"name", "label", "value", "higher_is_better", "std", "at", "protocol", "subject"}


def test_the_card_of_a_run(pae, tmp_path):
    finished_run(tmp_path / "a", [metric(value=19.5), metric("generation/fd_small_cnn", 2.25)])
    card = pae("cards", "a", "--json").ok().json
    assert card.keys() == KEYS
    assert card["card"] == 1
    assert card["of"] == {"run": "a", "recipe": "a"}
    assert [m["value"] for m in card["metrics"]] == [19.5, 2.25]
    assert all(m.keys() == METRIC for m in card["metrics"])
    assert card["environment"]["device"] == "cpu"
    assert card["environment"]["packages"]["torch"]
    assert card["tool"].startswith("pae-framework 0.1.0")


def test_values_are_printed_first_and_protocols_only_on_request(pae, tmp_path):
    own = {**PROTOCOL, "solver": "heun"}
    fd = "generation/fd_small_cnn"
    at = {"generator_step": 50}
    metrics = [
        metric(std=0.5),
        metric(fd, 2.25, protocol=own),
        metric(fd, 4.5, protocol=own, at=at),
        metric("x/y", protocol={**PROTOCOL, "solver": "euler"}),
    ]
    finished_run(tmp_path / "a", metrics)
    short = pae("cards", "a").ok()
    assert "20 ± 0.5" in short.out
    assert "shapes" not in short.out
    assert "--protocol" in short.err
    long = pae("cards", "a", "--protocol").ok()
    assert "--protocol" not in long.err
    table, _, protocols = long.out.partition("\nall\n")
    rows = [re.split(r"  +", line.strip()) for line in table.splitlines()]
    assert rows[-4:] == [
        ["PSNR", "20 ± 0.5"],
        ["gFD", "2.25", "[1]"],
        ["gFD", "4.5", "generator step 50", "[1]"],
        ["made up", "20", "[2]"],
    ]
    common, first, second = re.split(r"\n\[\d\]\n", protocols)
    assert "test data.use: shapes" in common
    assert first.strip() == "solver: heun"
    assert second.strip().startswith("solver: euler")
    assert "tool version: pae-framework 0.1.0" in second


def test_cards_are_readable_in_80_columns(pae, tmp_path):
    shutil.copytree(FINISHED, tmp_path / "old", symlinks=True)
    assert max(map(len, pae("cards", "old").ok().out.splitlines())) <= 80


def test_several_runs_are_for_compare(pae, tmp_path):
    for name in ("a", "b c"):
        finished_run(tmp_path / name, [metric()])
    assert "pae compare a 'b c'" in pae("cards", "a", "b c").fails(2).err


def test_results_of_an_earlier_version_are_read(pae, tmp_path):
    shutil.copytree(FINISHED, tmp_path / "old", symlinks=True)
    metrics = pae("cards", "old", "--json").ok().json["metrics"]
    assert {m["label"] for m in metrics} >= {"PSNR", "SSIM", "rFD", "gFD", "eRank"}
    assert "PSNR" in pae("cards", "old").ok().out


def test_a_sweep_has_a_card_of_each_finished_member(pae, tmp_path):
    sweep = sweep_of(tmp_path / "s", {"x-seed0": [metric()], "x-seed1": [metric(value=21.0)]})
    shutil.copytree(sweep / "members" / "x-seed0", sweep / "members" / "y", symlinks=True)
    info = json.loads((sweep / "run.json").read_text())
    info["members"] += ["y", "never started"]
    (sweep / "run.json").write_text(json.dumps(info))
    shutil.rmtree(sweep / "members" / "y" / "stages" / "evaluate-9e16b2da7d99")
    found = pae("cards", "s", "--json").ok().json
    assert found["card"] == 1
    assert [card["metrics"][0]["value"] for card in found["members"]] == [20.0, 21.0]
    assert "x-seed1" in pae("cards", "s").ok().out


def test_a_file_of_cards_reads_as_what_it_was_made_of(pae, tmp_path):
    finished_run(tmp_path / "a", [metric()])
    sweep_of(tmp_path / "s", {"x-seed0": [metric()], "x-seed1": [metric(value=21.0)]})
    for name in ("a", "s"):
        (tmp_path / f"{name}.json").write_text(pae("cards", name, "--json").ok().out)
        expected = [(named.name, named.card) for named in open_cards(tmp_path / name)]
        found = [(named.name, named.card) for named in open_cards(tmp_path / f"{name}.json")]
        for (name_, card), (name__, card_) in zip(expected, found, strict=True):
            assert name_ == name__
            assert card["metrics"] == card_["metrics"]


def recorded(path, **values):
    record = StageRecord((path / "evaluate").resolve())
    record.update(**values)
    record.renew_results()


def ran_on(**hosts):
    """A run with a metric of each evaluator, and the host that computed it; None: not recorded."""

    def make(path):
        metrics = [metric(f"{label}/psnr") for label in hosts]
        run = finished_run(path, metrics)
        for label, one in zip(hosts, metrics, strict=True):
            (run / "evaluate" / label).mkdir(exist_ok=True)
            (run / "evaluate" / label / "metrics.json").write_text(json.dumps([one]))
        entry = {"fingerprint": "0", "files": {}}
        evaluators = {
            label: {**entry, **({"environment": {"host": host, "cores": 2}} if host else {})}
            for label, host in hosts.items()
        }
        both = [{"host": "a", "cores": 2, "command": "x"}, {"host": "b", "cores": 2}]
        recorded(run, evaluators=evaluators, ran_with=both, machine={"host": "b", "cores": 2})
        return run

    return make


@pytest.mark.parametrize(
    ("make", "shared", "own"),
    [
        (ran_on(x="a", y="a"), {"host": "a", "cores": 2}, [None, None]),
        (ran_on(x="b", y="a"), {"cores": 2}, [{"host": "b"}, {"host": "a"}]),
        (
            ran_on(x="b", y=None),
            {"cores": 2},
            [{"host": "b"}, {"one_of": [{"host": "a"}, {"host": "b"}]}],
        ),
        (
            ran_on(x=None, y=None),
            {"cores": 2, "one_of": [{"host": "a"}, {"host": "b"}]},
            [None, None],
        ),
    ],
    ids=["one", "two", "one is not recorded", "of an earlier version"],
)
def test_each_metric_has_the_machine_that_computed_it(make, shared, own, pae, tmp_path):
    make(tmp_path / "a")
    card = pae("cards", "a", "--json").ok().json
    assert card["environment"] == shared
    assert [metric.get("environment") for metric in card["metrics"]] == own
    out = pae("cards", "a", "--protocol").ok().out
    assert "host" in out or "one of" in out


def test_notes_of_evaluators_are_in_the_card(pae, tmp_path):
    run = ran_on(x="a", y="a")(tmp_path / "a")
    notes = {"not_available": {"FID": "no images"}, "cautions": ["few images"]}
    (run / "evaluate" / "y" / "notes.json").write_text(json.dumps(notes))
    recorded(run)
    card = pae("cards", "a", "--json").ok().json
    assert card["not_available"] == {"y/FID": "no images"}
    assert card["cautions"] == ["y: few images"]
    shown = pae("cards", "a").ok()
    assert "no images" in shown.out
    assert "few images" in shown.err


NO_CARDS = ["nothing", "folder", "unfinished", "s.npz"]
NO_CARD_FILES = ["text.json", "later.json", "metrics.json", "value.json"]


@pytest.mark.parametrize("what", [*NO_CARDS, *NO_CARD_FILES, "damaged"])
def test_what_is_no_card(what, pae, tmp_path):
    (tmp_path / "folder").mkdir()
    unfinished = finished_run(tmp_path / "unfinished")
    (unfinished / "evaluate" / "stage.json").unlink()
    damaged = finished_run(tmp_path / "damaged")
    (damaged / "evaluate" / "results.json").write_text("[{]")
    card = make_card({}, [metric()], {})
    (tmp_path / "text.json").write_text("pae: 1")
    (tmp_path / "later.json").write_text(json.dumps({**card, "card": 2}))
    (tmp_path / "metrics.json").write_text(json.dumps({"card": 1}))
    (tmp_path / "value.json").write_text(json.dumps({**card, "metrics": [{"name": "a/b"}]}))
    np.savez(tmp_path / "s.npz", np.zeros(1))
    assert what in pae("cards", what).fails(1 if what == "damaged" else 2).err


def test_samples_have_the_card_beside_them_and_no_other(pae, tmp_path):
    np.savez(tmp_path / "s.npz", np.zeros(1))
    subject = {"samples_digest": f"xxh3 {file_digest(tmp_path / 's.npz')}"}
    card = make_card({}, [metric(subject=subject)], {})
    (tmp_path / "s.json").write_text(json.dumps(card))
    assert "PSNR" in pae("cards", "s.npz").ok().out
    np.savez(tmp_path / "s.npz", np.ones(1))
    assert "s.json" in pae("cards", "s.npz").fails(2).err


def test_the_environment_names_gpus_and_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_DRIVER", tmp_path)
    assert (environment._gpus(), environment._driver()) == ([], None)
    for number, model in enumerate(("NVIDIA H200", "NVIDIA L4")):
        folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 18\n")
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Fri Jan 1\nGCC version: 12.2.0"
    )
    assert environment._gpus() == ["NVIDIA H200", "NVIDIA L4"]
    assert environment._driver() == "570.86.15"
