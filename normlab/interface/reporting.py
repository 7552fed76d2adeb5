"""Makes a report from a folder, for the command line."""

import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from normlab.data.dataset import Dataset
from normlab.data.described import dataset_of
from normlab.errors import UserError
from normlab.interface.terminal import places
from normlab.measures.measures import USUAL_MEASURE
from normlab.reports.markdown import to_text
from normlab.reports.shown_comparison import compare
from normlab.reports.text_columns import visible
from normlab.store.loading import load_runs
from normlab.store.record import Record


def draw(
    path: Path,
    kind: str,
    baseline: str | None,
    measure: str,
    file: Path,
    width: str | None = None,
    style: str | None = None,
    **options: str,
) -> Path:
    """Draw one picture of a comparison as a file; the same runs give the same bytes.

    `width` and `style` are as in `normlab plot`.

    Raises:
        UserError: there is no such picture of these runs, or the file cannot be written.
    """
    from normlab.reports.figures.sizes import fit, inches
    from normlab.reports.figures.style import save

    comparison = compare(load_runs(path), baseline=baseline, measure=measure)
    figure = comparison.plot(kind, **options)
    if width is not None or style is not None:
        fit(figure, None if width is None else inches(width), style)
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            save(figure, file, dpi=150)
    except (OSError, ValueError) as error:  # matplotlib's ValueError lists the formats it knows
        raise UserError(f"{file}: cannot be written ({error}); choose another --out") from None
    for warning in found:
        print(f"note: {warning.message}", file=sys.stderr)
    return file


def render(
    path: Path | Sequence[Path],
    baseline: str | None,
    measure: str,
    form: str,
    wide: bool = False,
    spell: Callable[[str], str] = visible,
) -> str:
    """Write the report of an experiment in one form: html, md, latex, json, csv or text.

    Several experiments have one report. With `wide` the text has every column. Its lines are as
    wide as the terminal, and its cells pass through `spell`.
    """
    paths = [path] if isinstance(path, Path) else path
    comparison = compare(list(map(load_runs, paths)), baseline=baseline, measure=measure)
    if form == "text":
        return to_text(comparison, places(Console()), wide, spell) + "\n"
    words = ["normlab", "report", *map(str, paths)]
    if baseline is not None:
        words += ["--baseline", baseline]
    if measure != USUAL_MEASURE:
        words += ["--measure", measure]
    command = shlex.join([*words, *(["--format", form] if form != "html" else [])])
    if form == "html":
        from normlab.reports.html import to_html

        return to_html(comparison, command, _test_images)
    if form == "md":
        from normlab.reports.markdown import to_markdown

        return to_markdown(comparison, command)
    if form == "latex":
        from normlab.reports.latex import to_latex

        return to_latex(comparison, command)
    from normlab.reports.export import to_csv, to_json

    return to_json(comparison) if form == "json" else to_csv(comparison)


def _test_images(record: Record) -> np.ndarray | None:
    """Load the images of a run's test set, where its data are as they were."""
    try:
        data = _dataset(record)
    except (UserError, ImportError, OSError):
        return None
    if any(one["data"]["fingerprint"] != data.fingerprint for one in record.provenance):
        return None
    return data.test.images


def _dataset(record: Record) -> Dataset:
    """Load the data of a run; JAX is imported only for a person's own code, and for clients."""
    section = record.config["data"]
    if ":" not in section["name"] and section.get("shards") is None:
        return dataset_of(section).load().validated(section["validation"])
    from normlab.configs import admission, build

    admission.admit_resolved(record.config, record.path)  # a stranger's config may name code
    return build.dataset(record.config)
