"""From a folder to a report, for the command line."""

import shlex
from pathlib import Path

from normlab.evidence.compare import compare
from normlab.runs.directory import load_experiment


def render(path: Path, baseline: str | None, measure: str, form: str) -> str:
    """The report of an experiment, as text of one form: html, md, json or csv."""
    comparison = compare(load_experiment(path), baseline=baseline, measure=measure)
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
