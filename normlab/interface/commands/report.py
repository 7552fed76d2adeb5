"""`normlab report`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from normlab.errors import UserError
from normlab.interface.commands import Baseline, MeasureText, Panel
from normlab.measures.measures import USUAL_MEASURE
from normlab.store.bundles import place_for
from normlab.store.names import slug

PANEL = Panel.READ


class Form(StrEnum):
    """The kinds of text that a report can be written as."""

    html = "html"
    md = "md"
    json = "json"
    latex = "latex"
    csv = "csv"
    text = "text"


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="The folder of an experiment, such as runs/quickstart; of several, to compare "
            "them in one report.",
            metavar="FOLDER...",
            show_default=False,
        ),
    ],
    baseline: Baseline = None,
    measure: MeasureText = USUAL_MEASURE,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="A page (html), or text.", show_default="html"),
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Print every column of the table of arms, as text.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write.",
            metavar="FILE",
            show_default="report.html in the folder, or beside a bundle; text is printed",
        ),
    ] = None,
) -> None:
    """Report what an experiment's runs amount to: verdicts, intervals, prices and pictures."""
    from normlab.interface.reporting import render
    from normlab.reports.text_columns import printed, visible
    from normlab.store.writing import write_atomically

    if form is None:
        form = Form.text if wide else Form.html
    if wide and form is not Form.text:
        raise UserError(f"--wide is for --format text alone; {form} has every column")
    text = render(paths, baseline, measure, form.value, wide, printed if out is None else visible)
    file = out or (_page(paths) if form is Form.html else None)
    if file is None:
        print(text, end="")
        return
    try:
        write_atomically(file, text)  # it takes the place of a link, and does not follow it
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error}); choose another --out") from None
    print(file)


def _page(paths: list[Path]) -> Path:
    """Return where a page goes: into the first folder, or beside the bundle.

    The page of several experiments has its own name.
    """
    first, *others = paths
    with_others = "".join(f"+{path.resolve().name}" for path in others)
    return place_for(first, f"{slug(f'report{with_others}')}.html")
