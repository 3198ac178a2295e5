"""``pae cards``: the metrics of a run with all that is needed to compare and repeat them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.card_text import print_card
from pae_framework.cli.output import print_answer, warn
from pae_framework.cli.shell_completion import complete_run
from pae_framework.system.printing import print_line


def cards(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="directory of a run or a sweep, or a card file",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print every metric of a run as a card: what was measured, how, and with which software.

    The JSON is what `pae evaluate --out` writes; that of a sweep has a card of each finished
    member.

    Examples:
        pae cards runs/quickstart

        pae cards runs/quickstart --json
    """
    from pae_framework.runs.cards import VERSION, open_cards

    found = open_cards(run)
    if as_json:
        single = len(found) == 1 and found[0].run in (None, run)
        members = {"card": VERSION, "members": [named.card for named in found]}
        print_answer("cards", found[0].card if single else members)
        return
    for named in found:
        if len(found) > 1:
            print_line(named.name)
        print_card(named.card)
        for caution in named.card.get("cautions", ()):
            warn(caution)
