"""The verdict on the latents of the quickstart, and the numbers behind its sentence."""

import json

import pytest

from pae_framework.testing.pytest import run_process

LATENTS_ONLY = (
    *("generator=null", "sample=null", "evaluate.generation=null", "evaluate.few_steps=null"),
    "runtime.threads=1",
)


@pytest.mark.slow
def test_the_quickstart_is_undecided_because_pixels_show_the_ink(pae, tmp_path):
    command = ("-m", "pae_framework", "run", "quickstart", *LATENTS_ONLY, "--run-dir", "run")
    out = run_process(*command, cwd=tmp_path, timeout=550).ok().out
    (row,) = [
        row
        for row in pae("status", "run", "--json").ok().json["runs"]["quickstart"]
        if row["stage"] == "evaluate"
    ]
    verdict = row["verdict"]
    assert verdict["answer"] == "undecided"
    assert "locally continuous and semantically organized" in verdict["sentence"]
    assert " ".join(verdict["sentence"].split()) in " ".join(out.split())
    grades = {found["label"]: found["grade"] for found in verdict["diagnoses"]}
    assert grades == {"SSC": "unclear", "LPC": "good", "GSQ": "good", "eRank": "no collapse"}
    assert verdict["caveats"] == []

    results = json.loads((tmp_path / "run/evaluate/results.json").read_bytes())
    values = {metric["name"].partition("/")[2]: metric["value"] for metric in results}
    half_way = (values["ssc_random"] + values["ssc_encoder"]) / 2
    assert half_way < values["ssc"] < values["ssc_pixels"]
    assert values["lpc"] < min(values["lpc_pixels"], values["lpc_other"] / 2)
    assert values["gsq"] > (values["gsq_random"] + values["gsq_encoder"]) / 2
    assert values["distance_own"] < values["distance_other"] / 2
