"""What a recipe needs from the machine it runs on, as far as it can be known before it runs."""

from __future__ import annotations

from pae_framework.errors import Problem
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import dotted


def missing_here(loaded: LoadedRecipe) -> list[Problem]:
    """Folders and files of data that a run of this recipe reads and this machine does not have."""
    data = loaded.recipe.data
    return [
        Problem(missing, dotted(path), loaded.root.place(path))
        for path, source in ((("data", "train"), data.train), (("data", "test"), data.test))
        if (missing := source.config.missing()) is not None
    ]
