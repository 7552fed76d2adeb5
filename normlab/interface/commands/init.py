"""`normlab init`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from normlab.interface.commands import Panel, Trust

PANEL = Panel.MAKE


def command(
    file: Annotated[Path, typer.Argument(help="The config to write.", metavar="FILE")] = Path(
        "experiment.yaml"
    ),
    data: Annotated[
        str | None,
        typer.Option(
            help="The data: a name, a folder of pictures, or my_data:Pets.",
            metavar="DATA",
            show_default="asked",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The network: a name, or my_net:Net.", metavar="MODEL", show_default="asked"
        ),
    ] = None,
    norms: Annotated[
        str | None,
        typer.Option(
            help="The normalisers to compare, with commas between.",
            metavar="NORMS",
            show_default="asked",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each normaliser.")] = 3,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Copy a config that comes with normlab, such as quickstart.",
            metavar="NAME",
            show_default="none",
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Write a commented config for your data and your model. What is not given is asked."""
    from normlab.interface.starters import config, write_new

    if source is not None:
        from normlab.configs.shipped import shipped_text

        write_new(file, shipped_text(source))
        print(f"{file}: a copy of normlab's {source}; normlab run {file}")
        return
    data = _asked(data, "Data (a name, a folder of pictures, or my_data:Pets)", "shapes")
    model = _asked(model, "Network (a name, or my_net:Net)", "convnet")
    usual = "own, layer_norm" if ":" in model else "batch_norm, layer_norm"
    norms = _asked(norms, "Normalisers, with commas between", usual)
    listed = [name.strip() for name in norms.split(",") if name.strip()]
    text = config(
        str(file),
        data=_data(data),
        model=model,
        norms=listed,
        epochs=epochs,
        seeds=seeds,
        batch_size=32 if data == "shapes" else 128,
    )
    write_new(file, text)
    _tell(file, trust)


def _asked(given: str | None, question: str, usual: str) -> str:
    if given is not None:
        return given
    # Without a terminal there is nobody to ask.
    return typer.prompt(question, default=usual) if sys.stdin.isatty() else usual


def _data(given: str) -> str:
    """Write data as YAML: a path of pictures, arrays or tables, or a name."""
    import json

    from normlab.catalogue import DATA

    kind = Path(given).suffix.removeprefix(".")  # npz, parquet, ...
    if kind not in DATA.entries():
        if not Path(given).is_dir():
            return given
        kind = "folder"
    return f"{{name: {kind}, path: {json.dumps(given)}}}"


def _tell(file: Path, trust: bool) -> None:
    """Print what comes next, or what is still to be mended in the file."""
    from normlab.configs.document import ConfigError
    from normlab.errors import UserError
    from normlab.interface.trusting import load_trusted
    from normlab.reports.english import count_runs

    try:
        runs = count_runs(len(load_trusted(file, (), trust).runs))
    except UserError as error:
        if isinstance(error, ConfigError) and all(p.not_run for p in error.problems):
            print(f"{file} is written, and names code: normlab run {file} --trust")
            return
        print(f"{file} is written; this is still to be mended:\n{error}")
    else:
        print(f"{file}: {runs}; normlab run {file}")
