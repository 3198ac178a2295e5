"""The hooks a plugin may implement: one for each kind of component, and the life-cycle hooks.

The kinds are those of :mod:`pae_framework.kinds`: datasets, tokenizers, encoders, modulators,
bottlenecks, decoders, discriminators, regularizers, generators, evaluators and trackers. A plugin
is an importable module named by an entry point of the group ``pae_framework``. It states the API
version it was written for and registers its components as import strings, so that listing plugins
does not import torch::

    from pae_framework import hookimpl

    pae_api = 1


    @hookimpl
    def pae_register_encoders(register):
        register(
            "my-encoder",
            target="my_package.encoder:MyEncoder",  # a pae_framework.contracts.Encoder
            config="my_package.config:MyEncoderConfig",  # a pae_framework.config.EncoderConfig
            summary="What it is, in one line.",
        )

The life-cycle hooks tell a plugin what a run does. An implementation takes any of the arguments, by
name::

    @hookimpl
    def pae_metrics_logged(stage, metrics):
        print(stage.name, metrics.step, metrics.values["loss"])

They are called in the main process of a run or job only (rank 0), in order, in a thread for each
plugin, so a slow implementation delays no training. What it prints goes to stderr. If it raises
anything but KeyboardInterrupt, which stops the run, the error is logged, and this hook of this
plugin is not called again during the stage; the run goes on. A stage waits at its start and at its
end up to 10 s for calls under way, a run that ends up to 60 s, an interrupted one 5 s. A call that
takes longer is not waited for again.
"""

from __future__ import annotations

from typing import Protocol

import pluggy

from pae_framework.lifecycle import (
    Artifact,
    LoggedMetrics,
    RunInfo,
    RunResult,
    StageFailure,
    StageInfo,
)

PAE_API = 1
"""Version of the hooks and contracts; a plugin states the one it was written for as ``pae_api``."""

OLDEST_API = 1
"""The oldest version whose plugins still load. Hooks only gain arguments, which older plugins need
not take; a hook that is removed gives its name to no other."""

PROJECT = "pae_framework"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The argument of a hook; call it once for each component."""

    def __call__(self, name: str, *, target: str, config: str, summary: str) -> None:
        """Register a component.

        Args:
            name: the value of ``use:`` in a recipe; lower case, words joined by ``_`` or ``-``.
            target: import string ``package.module:Class`` of the component.
            config: import string of its config model, in a module that imports no torch.
            summary: one line for ``pae list-plugins``.
        """


@hookspec
def pae_register_datasets(register: Register) -> None:
    """Register data sources: ``config`` is a DataSourceConfig, ``target`` a DataSource."""


@hookspec
def pae_register_tokenizers(register: Register) -> None:
    """Register tokenizers: ``config`` is a TokenizerConfig, ``target`` a Tokenizer."""


@hookspec
def pae_register_encoders(register: Register) -> None:
    """Register encoders: ``config`` is an EncoderConfig, ``target`` an Encoder."""


@hookspec
def pae_register_modulators(register: Register) -> None:
    """Register modulators: ``config`` is a ModulatorConfig, ``target`` a Modulator."""


@hookspec
def pae_register_bottlenecks(register: Register) -> None:
    """Register bottlenecks: ``config`` is a BottleneckConfig, ``target`` a Bottleneck."""


@hookspec
def pae_register_decoders(register: Register) -> None:
    """Register decoders: ``config`` is a DecoderConfig, ``target`` a Decoder."""


@hookspec
def pae_register_discriminators(register: Register) -> None:
    """Register discriminators: ``config`` is a DiscriminatorConfig, ``target`` a Discriminator."""


@hookspec
def pae_register_regularizers(register: Register) -> None:
    """Register regularizers: ``config`` is a RegularizerConfig, ``target`` a Regularizer."""


@hookspec
def pae_register_generators(register: Register) -> None:
    """Register generators: ``config`` is a GeneratorConfig, ``target`` a Generator."""


@hookspec
def pae_register_evaluators(register: Register) -> None:
    """Register evaluators: ``config`` is an EvaluatorConfig, ``target`` an Evaluator."""


@hookspec
def pae_register_trackers(register: Register) -> None:
    """Register trackers: ``config`` is a TrackerConfig, ``target`` a Tracker."""


# --- life cycle -----------------------------------------------------------------------------------


@hookspec
def pae_run_started(run: RunInfo) -> None:
    """This process starts its first unfinished stage of a run: that of `pae run`, or of a job.

    An interrupted run starts again each time that it resumes, in the same directory.
    """


@hookspec
def pae_run_finished(run: RunInfo, result: RunResult) -> None:
    """This process ends its work on a run that it started, whatever the reason."""


@hookspec
def pae_stage_started(run: RunInfo, stage: StageInfo) -> None:
    """A stage starts or resumes. Not called for cached stages."""


@hookspec
def pae_stage_finished(run: RunInfo, stage: StageInfo) -> None:
    """A stage is done, and its results are recorded."""


@hookspec
def pae_stage_failed(run: RunInfo, stage: StageInfo, failure: StageFailure) -> None:
    """A stage failed or was stopped. Not called if the process is killed."""


@hookspec
def pae_metrics_logged(run: RunInfo, stage: StageInfo, metrics: LoggedMetrics) -> None:
    """A training wrote a line to its log, every ``log_every`` steps."""


@hookspec
def pae_artifact_written(run: RunInfo, stage: StageInfo, artifact: Artifact) -> None:
    """A stage that is done has left this result file; called for each, before
    ``pae_stage_finished``.
    """


LIFE_CYCLE = (
    *("pae_run_started", "pae_run_finished"),
    *("pae_stage_started", "pae_stage_finished", "pae_stage_failed"),
    *("pae_metrics_logged", "pae_artifact_written"),
)
"""Names of the life-cycle hooks."""
