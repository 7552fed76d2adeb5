"""`normlab describe`."""

from typing import Annotated

import typer

from normlab.interface.commands import Panel, Trust

PANEL = Panel.LOOK_UP


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="A name from `normlab list`, or a section of a config such as `train`.",
            metavar="NAME",
            show_default=False,
        ),
    ],
    trust: Trust = False,
) -> None:
    """Describe a normaliser, a model, a data set ...: paper, fields, defaults, cost, YAML."""
    from normlab.interface.describe import describe_entry
    from normlab.interface.trusting import admit_name

    admit_name(name, trust)
    print(describe_entry(name))
