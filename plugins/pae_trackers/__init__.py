"""Built-in plugins that follow a run: TensorBoard, and the trackers of a recipe. No torch here."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register
from pae_trackers.tensorboard import pae_metrics_logged, pae_stage_failed, pae_stage_finished

__all__ = ["pae_metrics_logged", "pae_stage_failed", "pae_stage_finished"]

pae_api = 1


@hookimpl
def pae_register_trackers(register: Register) -> None:
    """Register the built-in trackers."""
    register(
        "wandb",
        target="pae_trackers.wandb_tracker:WandbTracker",
        config="pae_trackers.config:WandbConfig",
        summary="metrics, results and reports of a run in Weights & Biases",
    )
    register(
        "trackio",
        target="pae_trackers.trackio_tracker:TrackioTracker",
        config="pae_trackers.config:TrackioConfig",
        summary="metrics, results and reports of a run in trackio",
    )
