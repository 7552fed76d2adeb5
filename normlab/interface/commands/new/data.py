"""`normlab new data`."""

from typing import Annotated

import typer

from normlab.interface.commands.new import start


def command(
    name: Annotated[str, typer.Argument(help="Its name, such as my_data.", metavar="NAME")],
) -> None:
    """Write a dataset of your own that passes its checks, in a file of this folder."""
    from normlab.interface.starters import DATA

    start(DATA, name, "data")
