"""`normlab check`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from normlab.errors import UserError, visible
from normlab.interface.commands import BAD_INPUT, Panel, Trust

PANEL = Panel.MAKE


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Experiments in YAML, or folders of them.", metavar="PATH", show_default=False
        ),
    ],
    trust: Trust = False,
) -> None:
    """Find every mistake in configs, with its file, line and column.

    Code that a config names is run only if its folder is trusted. Otherwise it is read.
    """
    from normlab.interface.checking import check_all, count

    files: list[Path] = []
    for path in paths:
        if "=" in str(path) and not path.exists():
            raise UserError(
                f"'{path}' is an override and not a file; overrides are checked by "
                f"`normlab run FILE {path} --dry-run`"
            )
        files += sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"there is no .yaml file in {', '.join(map(str, paths))}")
    wrong = 0
    for found in check_all(files, trust):
        wrong += found.must_be_mended
        print(visible(found.text), file=sys.stderr if found.must_be_mended else sys.stdout)
    if wrong:
        print(f"{wrong} of {count(len(files), 'file')} must be mended", file=sys.stderr)
        raise typer.Exit(BAD_INPUT)
