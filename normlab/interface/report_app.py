"""The commands that read an experiment: `report`, `plot`, `verdict`, `watch`.

Heavy imports stand inside them.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from normlab.errors import UserError

app = typer.Typer()

REFUTED = 1
"""The exit status of `verdict` where a registered claim is refuted."""

ExperimentPath = Annotated[
    Path, typer.Argument(help="An experiment's folder, as runs/quickstart.", show_default=False)
]
Baseline = Annotated[
    str | None,
    typer.Option(
        help="An arm, or a value of an axis for the arms that have it; the first if left out."
    ),
]
MeasureText = Annotated[
    str, typer.Option("--measure", help="What to compare, as steps_to(test_accuracy, 0.6).")
]


class Form(StrEnum):
    """What `report` can write."""

    html = "html"
    md = "md"
    json = "json"
    csv = "csv"


@app.command()
def report(
    path: ExperimentPath,
    baseline: Baseline = None,
    measure: MeasureText = "final(test_accuracy)",
    form: Annotated[Form, typer.Option("--format", help="A page, or text.")] = Form.html,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; a page is report.html in PATH, text is printed."),
    ] = None,
) -> None:
    """Say what the runs of an experiment amount to: verdicts, intervals, prices, pictures."""
    from normlab.interface.reporting import render

    text = render(path, baseline, measure, form.value)
    file = out or (path / "report.html" if form is Form.html else None)
    if file is None:
        print(text, end="")
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error}); choose another --out") from None
    print(file)


@app.command()
def plot(
    path: ExperimentPath,
    kind: Annotated[
        str,
        typer.Argument(
            help="differences, curves, values, price, heat, over, beside, profile or probes."
        ),
    ],
    baseline: Baseline = None,
    measure: MeasureText = "final(test_accuracy)",
    out: Annotated[
        Path | None, typer.Option(help="An .svg, .png or .pdf; KIND.svg in PATH if left out.")
    ] = None,
    probe: Annotated[
        str | None, typer.Option(help="Of probes: which; the first if left out.")
    ] = None,
    quantity: Annotated[
        str | None, typer.Option(help="Of a probe: one of its quantities, drawn large.")
    ] = None,
) -> None:
    """Draw one of the report's pictures into a file of its own."""
    from normlab.interface.reporting import draw

    options = {"probe": probe, "quantity": quantity}
    given = {name: value for name, value in options.items() if value is not None}
    if given and kind != "probes":
        raise UserError(f"--{next(iter(given))} is for `normlab plot PATH probes` alone")
    print(draw(path, kind, baseline, measure, out or path / f"{kind}.svg", **given))


@app.command()
def verdict(path: ExperimentPath) -> None:
    """Judge the claims of an experiment; exit status 1 if a registered one is refuted."""
    from normlab.evidence.mixes import mixes
    from normlab.evidence.remarks import read_remarks
    from normlab.evidence.verdicts import judge
    from normlab.reports.markdown import verdict_line
    from normlab.store.loading import load_runs

    runs = load_runs(path)
    records = runs.records()
    verdicts, beware = judge(runs, records), read_remarks(path).beware
    if not verdicts:
        print(f"{path}: its config makes no claims")
    if beware:
        print(f"beware: {beware}")
    for one in verdicts:
        print(verdict_line(one))
    for text in mixes(records):
        print(f"note: {text}")
    stand = [one for one in verdicts if one.registered and not one.retracted]
    if any(one.outcome == "refuted" for one in stand):
        raise typer.Exit(REFUTED)


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="An experiment's folder, or a run's.")],
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
) -> None:
    """Show a sweep while it runs, from any terminal; ends when all runs are finished."""
    from rich.console import Console

    from normlab.interface.watch import watch as show

    show(folder, Console(), once)
