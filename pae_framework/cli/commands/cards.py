"""``pae cards``: the metrics of a run with all that is needed to compare and repeat them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption, ProtocolOption
from pae_framework.cli.card_text import print_cards
from pae_framework.cli.output import print_answer, warn
from pae_framework.cli.shell_completion import complete_run
from pae_framework.errors import UsageError


def cards(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="directory of a run or a sweep, or a card file",
        ),
    ],
    protocol: ProtocolOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print every metric of a run; with --protocol, also how and with which software.

    The JSON has all of it and is what `pae evaluate --out` writes; that of a sweep has a card of
    each finished member.

    Examples:
        pae cards runs/quickstart

        pae cards runs/quickstart --protocol

        pae cards runs/quickstart --json
    """
    from pae_framework.runs.cards import VERSION, open_cards

    if len(runs) > 1:
        command = shlex.join(["pae", "compare", *map(str, runs)])
        raise UsageError(f"cards are of one run; `{command}` shows several side by side")
    (run,) = runs
    found = open_cards(run)
    if as_json:
        single = len(found) == 1 and found[0].run in (None, run)
        members = {"card": VERSION, "members": [named.card for named in found]}
        print_answer("cards", found[0].card if single else members)
        return
    print_cards({named.name: named.card for named in found}, protocol)
    for named in found:
        for caution in named.card.get("cautions", ()):
            warn(f"{named.name}: {caution}" if len(found) > 1 else caution)
