"""Steps written as shares of a training: ``keep_steps: [50%]``. No torch."""

from __future__ import annotations

import re
from dataclasses import replace

from pae_framework.recipe.nodes import Node
from pae_framework.recipe.schema import RECIPE, SchemaNode
from pae_framework.training.train_settings import TrainSettings

SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_STEPS, _KEPT, _SAMPLED = "steps", "keep_steps", ("sample", "at_steps")


def steps_of_shares(root: Node) -> Node:
    """A merged recipe with the numbers of steps for shares, rounded, at least 1.

    ``keep_steps`` are shares of their training, ``sample.at_steps`` of the generator's. A share of
    a training whose ``steps`` are not written stays as it is, and validation reports it.
    """
    total = _number(root.find(("generator", "train", _STEPS)))
    section, key = _SAMPLED
    sample = root.child(section)
    if sample is not None and sample.map is not None and root.map is not None:
        root = replace(root, value={**root.map, section: _resolved(sample, key, total)})
    return _in_trainings(root, RECIPE)


def _in_trainings(node: Node, schema: SchemaNode) -> Node:
    if node.map is None:
        return node
    inside = {key: _in_trainings(x, schema.enter(key, node, None)) for key, x in node.map.items()}
    node = replace(node, value=inside)
    if isinstance(schema.type, type) and issubclass(schema.type, TrainSettings):
        return _resolved(node, _KEPT, _number(node.child(_STEPS)))
    return node


def _resolved(section: Node, key: str, total: int | None) -> Node:
    listed = section.child(key)
    if total is None or section.map is None or listed is None or not isinstance(listed.value, list):
        return section
    steps = replace(listed, value=[_step(entry, total) for entry in listed.value])
    return replace(section, value={**section.map, key: steps})


def _step(entry: Node, total: int) -> Node:
    share = SHARE.fullmatch(entry.value) if isinstance(entry.value, str) else None
    if share is None:
        return entry
    return replace(entry, value=max(1, round(total * float(share[1]) / 100)))


def _number(node: Node | None) -> int | None:
    value = None if node is None else node.value
    return value if isinstance(value, int) and not isinstance(value, bool) else None
