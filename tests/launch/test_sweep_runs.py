"""A sweep, as a user runs it: shared stages once, one table, one report."""

from __future__ import annotations

import json
from pathlib import Path

from chain_helpers import pae

SWEEP = """\
pae: 1
extends: tiny.yaml
name: sweep
evaluate: {manifold: null, few_steps: null}
sample: {at_steps: [], few_steps: []}
sweep:
  seeds: [0, 1]
  variants:
    none: {tokenizer.regularizers: null}
    scr: {tokenizer.regularizers.ssr: null, tokenizer.regularizers.mcr: null}
  paper: {source: Table 9, values: {none: {PSNR: 20.5}}}
"""


def test_a_sweep_shares_stages_and_prints_one_table(tmp_path: Path, tiny_recipe: Path):
    assert tiny_recipe.parent == tmp_path
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")

    pae("run", "sweep.yaml", "--only", "*-seed0", cwd=tmp_path).ok()
    whole = pae("run", "sweep.yaml", cwd=tmp_path).ok()

    run = tmp_path / "runs" / "sweep"
    folders = [path.name.rpartition("-")[0] for path in (run / "stages").iterdir()]
    assert folders.count("extractor") == folders.count("encoder") == folders.count("refine") == 1
    assert folders.count("tokenizer") == folders.count("generator") == 4
    assert whole.err.count("cached") == 2 * 9 + 2 * 3  # seed 0 all, seed 1 the shared

    found = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [(member["variant"], member["seed"]) for member in found] == [
        ("none", 0),
        ("none", 1),
        ("scr", 0),
        ("scr", 1),
    ]
    assert "PSNR" in whole.out
    assert "±" in whole.out
    page = (run / "report.html").read_text(encoding="utf-8")
    for member in found:
        link = f"members/{member['member']}/report.html"
        assert f'href="{link}"' in page
        assert (run / link).is_file()
    for variant in ("none", "scr"):
        for what in ("samples", "reconstructions", "latents"):
            assert f"{what} of {variant}" in page
    assert "Differences to none" in page
    assert "tokenizer.regularizers.ssr" in page
    tables = pae("report", run, "--markdown", cwd=tmp_path).ok().out
    comparison, beside = (
        tables.index("| variant | seeds |"),
        tables.index("| variant | PSNR ↑, paper"),
    )
    assert comparison < beside
    assert "| none | 20.5 |" in tables[beside:]
    assert "Paper: Table 9." in tables[beside:]
    resolved = run / "resolved.yaml"
    text = resolved.read_text(encoding="utf-8")
    resolved.write_text(text.replace("use: vit", "use: of_a_missing_plugin"), encoding="utf-8")
    without = pae("report", run, "--markdown", cwd=tmp_path).ok()
    assert without.out.strip() == tables[:beside].strip()
    assert "published values are left out" in without.err
    resolved.write_text(text, encoding="utf-8")
    # a member is an ordinary run
    member = pae("status", run / "members" / "scr-seed1", "--json", cwd=tmp_path)
    assert {row["state"] for row in member.json["runs"]["sweep"]} == {"done"}

    # after an edit, one member alone: the others' old results are not shown as the new recipe's
    pae("run", "sweep.yaml", "sample.steps=3", "--only", "none-seed0", cwd=tmp_path).ok()
    found = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [member["member"] for member in found] == ["none-seed0"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "none-seed1, scr-seed0, scr-seed1" in page
    assert "members/scr-seed0" not in page

    # a member's recipe, run without its directory, does not overwrite the sweep
    loose = pae("run", run / "members" / "none-seed0" / "resolved.yaml", cwd=tmp_path).fails(2)
    assert "sweep" in loose.err

    wrong = pae("run", "sweep.yaml", "--only", "mcr*", cwd=tmp_path).fails(2)
    assert "scr-seed1" in wrong.err
