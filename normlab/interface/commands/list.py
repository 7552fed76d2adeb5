"""`normlab list`."""

from typing import Annotated

import typer

from normlab.errors import UserError, did_you_mean
from normlab.interface.commands import Panel
from normlab.interface.shelves import KINDS

PANEL = Panel.LOOK_UP
MEASURES = "measures"


def command(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join([*KINDS, MEASURES])}.", metavar="KIND", show_default=False
        ),
    ],
) -> None:
    """List the names that a config can use."""
    from normlab.reports.text_columns import columns

    if kind == MEASURES:
        from normlab.measures.measures import described

        summaries = described()
    elif kind == "norms":
        from normlab.interface.lineage import listing

        print(listing())
        return
    elif kind in KINDS:
        summaries = {entry.name: entry.summary for entry in KINDS[kind].entries().values()}
    else:
        raise UserError(f"'{kind}' cannot be listed; {did_you_mean(kind, [*KINDS, MEASURES])}")
    print("\n".join(columns([[name, summary] for name, summary in summaries.items()])))
