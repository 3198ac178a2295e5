"""Built-in plugins that follow a run: TensorBoard. No torch here."""

from pae_trackers.tensorboard import pae_metrics_logged, pae_stage_failed, pae_stage_finished

__all__ = ["pae_metrics_logged", "pae_stage_failed", "pae_stage_finished"]

pae_api = 1
