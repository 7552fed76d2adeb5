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
    from normlab.configs.build import remarks
    from normlab.configs.document import ConfigError
    from normlab.interface.trusting import load_trusted

    files: list[Path] = []
    for path in paths:
        files += sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"there is no .yaml file in {', '.join(map(str, paths))}")
    wrong = 0
    for file in files:
        try:
            experiment = load_trusted(file, (), trust)
        except UserError as error:
            if isinstance(error, ConfigError) and all(p.not_run for p in error.problems):
                print(f"{visible(str(file))}: no mistake, as far as can be told without its code")
                print("\n".join(f"  {line}" for line in visible(str(error)).splitlines()))
                continue
            wrong += 1
            print(visible(str(error)), file=sys.stderr)
        else:
            parts = [_count(len(experiment.runs), "run")]
            if experiment.tuning is not None:
                parts.append(_count(len(experiment.tuning.trials), "trial"))
            if experiment.claims:
                parts.append(_count(len(experiment.claims), "claim"))
            print(f"{visible(str(file))}: fine, {', '.join(parts)}")
            for remark in remarks(run.sections for run in experiment.runs):
                print(f"  data: {visible(remark)}")
    if wrong:
        print(f"{wrong} of {_count(len(files), 'file')} must be mended", file=sys.stderr)
        raise typer.Exit(BAD_INPUT)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
