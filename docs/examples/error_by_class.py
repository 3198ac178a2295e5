"""An evaluator: which class is reconstructed worst. The report shows the table of all classes."""

import csv

import torch

from pae_framework import hookimpl
from pae_framework.config import EvaluatorConfig
from pae_framework.contracts import Evaluator, Metric

pae_api = 1


class ErrorByClassConfig(EvaluatorConfig):
    """Mean absolute error of reconstructions, for each class."""

    @property
    def needs(self):
        """What the engine must compute for it."""
        return frozenset({"reconstructions"})


class ErrorByClass(Evaluator):
    """The error of the worst class, of pixels from 0 to 1."""

    def evaluate(self, inputs, directory):
        """One metric; writes `classes.csv`."""
        parts = zip(inputs.images.split(500), inputs.reconstructions.split(500), strict=True)
        errors = torch.cat([(x.float() - y.float()).abs().flatten(1).mean(1) for x, y in parts])
        rows = {
            name: errors[inputs.labels == label].mean().item() / 255
            for label, name in enumerate(inputs.class_names)
            if (inputs.labels == label).any()
        }
        with (directory / "classes.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("class", "error"), *rows.items()])
        return [
            Metric(
                name="error_by_class/worst",
                label="worst class",
                value=max(rows.values()),
                higher_is_better=False,
                protocol=inputs.protocol,
                subject=inputs.protocol_of("tokenizer"),
            )
        ]


@hookimpl
def pae_register_evaluators(register):
    register(
        "error_by_class",
        target=f"{__name__}:ErrorByClass",
        config=f"{__name__}:ErrorByClassConfig",
        summary="the reconstruction error of the worst class",
    )
