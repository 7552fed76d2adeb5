"""`normlab new model`."""

from typing import Annotated

import typer

from normlab.interface.commands.new import start


def command(
    name: Annotated[str, typer.Argument(help="Its name, such as my_model.", metavar="NAME")],
) -> None:
    """Write a network of your own that passes its checks, in a file of this folder."""
    from normlab.interface.starters import MODEL

    start(MODEL, name, "model")
