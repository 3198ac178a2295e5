"""Writes the loss of every stage of a run as one table: `RUN/loss.csv`."""

from pae_framework import hookimpl

pae_api = 1


@hookimpl
def pae_run_started(run):
    """Begin the table, or go on with that of an interrupted run."""
    if not (run.path / "loss.csv").exists():
        (run.path / "loss.csv").write_text("stage,step,loss\n", encoding="utf-8")


@hookimpl
def pae_metrics_logged(run, stage, metrics):
    """Add a row, every `log_every` steps."""
    with (run.path / "loss.csv").open("a", encoding="utf-8") as table:
        table.write(f"{stage.name},{metrics.step},{metrics.values['loss']}\n")
