"""In what two versions of a stage differ."""

from __future__ import annotations

from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.changes import difference


def test_changes_come_in_the_order_of_the_recipe() -> None:
    keys = [f"key{number}" for number in range(20)]
    recipe = load_recipe("quickstart", (), load_registry()).recipe

    def hashed(value: int) -> dict[str, object]:
        component = {"name": "x", "version": 1, "config": {}} | dict.fromkeys(keys, value)
        return {"version": 1, "inputs": {}, "parts": {"discriminator": component}}

    changes = difference("tokenizer", hashed(1), hashed(2), recipe).changes
    assert [change.key[-1] for change in changes] == keys
