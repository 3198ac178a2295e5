"""The plugin of docs/tracking.md is the file in docs/examples, and follows a run."""

from __future__ import annotations

from pathlib import Path

from pae_framework.launch.hook_calls import HookCalls
from pae_framework.lifecycle import LoggedMetrics, RunInfo, StageInfo
from pae_framework.plugins import module_of, with_files
from pae_framework.registry import Registry

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "loss_table.py"


def test_the_page_shows_the_file() -> None:
    page = (DOCS / "tracking.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- plugin loss_table.py -->\n```python\n")[2].partition("```\n")[0]
    assert shown == EXAMPLE.read_text(encoding="utf-8")


def test_the_page_names_every_hook_with_its_arguments() -> None:
    from pae_framework import hookspecs

    page = (DOCS / "tracking.md").read_text(encoding="utf-8")
    for hook in hookspecs.LIFE_CYCLE:
        names = [name for name in getattr(hookspecs, hook).__annotations__ if name != "return"]
        assert f"| `{hook}` | {', '.join(f'`{name}`' for name in names)} |" in page


def test_it_writes_one_table_of_an_interrupted_run(tmp_path: Path) -> None:
    (plugin,) = with_files(Registry(), [EXAMPLE]).plugins
    assert plugin.error is None
    run = RunInfo("tiny", tmp_path, {}, "pae run tiny")
    stage = StageInfo("tokenizer", "0123456789ab", tmp_path)
    for step in (1, 2):
        calls = HookCalls(plugin.origin, module_of(plugin))
        calls.call("pae_run_started", {"run": run})
        metrics = LoggedMetrics(step, {"loss": 0.5}, step - 1)
        calls.call("pae_metrics_logged", {"run": run, "stage": stage, "metrics": metrics})
        calls.end(60)
    assert (tmp_path / "loss.csv").read_text(encoding="utf-8").splitlines() == [
        "stage,step,loss",
        "tokenizer,1,0.5",
        "tokenizer,2,0.5",
    ]
