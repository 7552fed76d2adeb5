"""`normlab new norm`."""

from typing import Annotated

import typer

from normlab.interface.commands.new import start


def command(
    name: Annotated[str, typer.Argument(help="Its name, such as my_norm.", metavar="NAME")],
) -> None:
    """Write a normaliser of your own that passes its checks, in a file of this folder."""
    from normlab.interface.starters import NORM

    start(NORM, name, "norm")
