"""Registers the components, and follows runs.

Written in the style of the first plugins: hooks take only the arguments that they use, configs
define nothing that has a default, and components implement only what is abstract. It is not
brought up to date, so it shows what a change of the framework breaks.
"""

from pae_framework import hookimpl

pae_api = 1


@hookimpl
def pae_register_datasets(register):
    register(
        name="stripes",
        target="acme_stripes.components:Stripes",
        config="acme_stripes.config:StripesConfig",
        summary="stripes along one side or the other",
    )


@hookimpl
def pae_register_modulators(register):
    register(
        name="gain",
        target="acme_stripes.components:Gain",
        config="acme_stripes.config:GainConfig",
        summary="one factor for each channel of the tokens",
    )


@hookimpl
def pae_register_generators(register):
    register(
        name="pointwise",
        target="acme_stripes.components:Pointwise",
        config="acme_stripes.config:PointwiseConfig",
        summary="a small network on each latent position by itself",
    )


@hookimpl
def pae_metrics_logged(metrics):
    if not all(isinstance(value, float) for value in metrics.values.values()):
        raise TypeError("a metric is no number")


@hookimpl
def pae_stage_finished(run, stage):
    with (run.path / "acme_stages.txt").open("a", encoding="utf-8") as file:
        file.write(f"{stage.name}\n")
