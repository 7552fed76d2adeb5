"""From a folder to a report, for the command line."""

import shlex
from pathlib import Path

from normlab.errors import UserError
from normlab.evidence.compare import compare
from normlab.runs.directory import Runs, load


def load_runs(path: Path) -> Runs:
    """An experiment from its folder.

    Raises:
        UserError: it is none.
    """
    runs = load(path)
    if not isinstance(runs, Runs):
        raise UserError(f"{path} is a single run; give the experiment's folder, {path.parent}")
    return runs


def render(path: Path, baseline: str | None, measure: str, form: str) -> str:
    """The report of an experiment, as text of one form: html, md, json or csv."""
    comparison = compare(load_runs(path), baseline=baseline, measure=measure)
    words = ["normlab", "report", str(path), "--baseline", comparison.baseline]
    if measure != "final(test_accuracy)":
        words += ["--measure", measure]
    command = shlex.join([*words, *(["--format", form] if form != "html" else [])])
    if form == "html":
        from normlab.evidence.html import to_html

        return to_html(comparison, command)
    if form == "md":
        from normlab.evidence.markdown import to_markdown

        return to_markdown(comparison, command)
    from normlab.evidence.tables import to_csv, to_json

    return to_json(comparison) if form == "json" else to_csv(comparison)
