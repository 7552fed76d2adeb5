"""Publishes an experiment's results as files to commit: a page, a picture, and the numbers.

The files are `results.md`, `figure.svg`, `metrics.json` and `provenance.json`, and if former
verdicts were others, `superseded.json`. Page and picture are made from the files of numbers alone,
so anyone can make them again, and the same runs give the same bytes.
"""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from normlab.configs.overrides import read
from normlab.errors import UserError
from normlab.evidence.caveats import changes_of, made_with
from normlab.evidence.comparison import Comparison
from normlab.evidence.remarks import read_remarks
from normlab.evidence.verdicts import Verdict, judge
from normlab.measures.measures import USUAL_MEASURE, Measure
from normlab.reports.english import count_runs, interval, number
from normlab.reports.figures.along_axis import numeric_axes
from normlab.reports.figures.style import save
from normlab.reports.markdown import markdown_table, to_markdown
from normlab.reports.shown_comparison import ShownComparison, compare
from normlab.reports.superseded import (
    supersede,
    superseded,
    superseded_lines,
    write_superseded,
)
from normlab.reports.thinning import Thinning, looks_inside
from normlab.store.layout import FINISHED
from normlab.store.loading import load_runs
from normlab.store.published import write_published
from normlab.store.record import Record
from normlab.store.runs import Runs
from normlab.store.writing import write_atomically

PAGE, FIGURE = "results.md", "figure.svg"


def publish(
    runs: Runs,
    folder: Path,
    *,
    baseline: str | None = None,
    measure: str | None = None,
    figure: str | None = None,
    **options: Any,
) -> Path:
    """Write an experiment's results into a folder of their own.

    Args:
        runs: an experiment whose runs are all finished.
        folder: the folder to write.
        baseline: an arm, or a value of an axis, as `compare` takes it.
        measure: the measure of the table; that of most claims if left out.
        figure: a kind of `Comparison.plot`; one that suits the sweep if left out.
        **options: options of the figure.

    Raises:
        UserError: a run is not finished, or was made by code that is in no commit, or the rounded
            numbers judge a claim otherwise. What the folder holds then stays as it is.
    """
    _check_finished(runs)
    _check_clean(runs)
    measures = claimed(runs)
    shown: dict[str, Any] = {"measure": measure or headline(measures), "baseline": baseline}
    more = {"source": runs.about.get("source") or _source(runs)}
    drawn = options.get("metric") or options.get("quantity") or ""
    kept = Thinning([*measures, *options.get("measures", ())], drawn)
    whole = {**more, "shown": {**shown, "figure": figure, **options}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    # What is there already stays until all of the new is.
    with tempfile.TemporaryDirectory(prefix=".publishing-", dir=folder.parent) as name:
        draft = Path(name)
        write_published(runs, draft, whole, kept.rows, kept.probes)
        written = load_runs(draft)
        _check_verdicts(judge(runs), judge(written), folder)
        former = supersede(folder, written)
        write_superseded(draft, former)
        _render(replace(written, path=folder), former, draft)
        folder.mkdir(exist_ok=True)
        for file in sorted(draft.iterdir()):
            file.replace(folder / file.name)
    return folder


def render(folder: Path) -> Path:
    """Make page and picture from the numbers that a folder holds, as `publish` left them."""
    _render(load_runs(folder), superseded(folder), folder)
    return folder


def _render(published: Runs, former: list[dict[str, Any]], out: Path) -> None:
    shown = dict(published.about["shown"])
    figure = shown.pop("figure")
    comparison = compare(published, measure=shown.pop("measure"), baseline=shown.pop("baseline"))
    kind = figure or _suiting(comparison, claimed(published))
    picture = _of_figure(comparison, kind).plot(kind, **_probe(comparison, kind), **shown)
    save(picture, out / FIGURE)
    write_atomically(out / PAGE, page(published, former))


def page(published: Runs, former: list[dict[str, Any]]) -> str:
    """`results.md`, from the committed numbers and the verdicts that they superseded."""
    about, shown = published.about, published.about["shown"]
    comparison = compare(published, measure=shown["measure"], baseline=shown["baseline"])
    text = to_markdown(comparison, f"normlab report {_from_here(published.path)}")
    head, rest = text.split("\n## ", 1)
    lines = [head]
    if about["source"]:
        lines += [f"Source: {about['source']}", ""]
    copy = read_remarks(published.path).copy
    data = "; ".join(made_with(comparison.records)["data"])
    lines += [f"Data: {data}" + (f". {copy}" if copy else ""), ""]
    n = Counter(len(arm.sample) for arm in comparison.arms).most_common(1)[0][0]
    lines += [
        f"`{published.command}`: {len(published)} runs, {n} an arm"
        + (f", and {len(published.trials)} to tune" if published.trials else "")
        + f"; {spent(published)}.",
        "",
        *_changed_lines(comparison.records),
        f"![{comparison.question or about['name']}]({FIGURE})",
        "",
        "## " + rest.rstrip("\n"),
    ]
    more = _measured(published, [m for m in claimed(published) if m != shown["measure"]])
    return "\n".join([*lines, *more, *superseded_lines(published, former)]) + "\n"


def _changed_lines(records: list[Record]) -> list[str]:
    """Say which runs come from code that nobody can have again; `publish` refuses those now."""
    changed = [found for record in records if (found := changes_of(record.provenance))]
    if not changed:
        return []
    states = "; ".join(dict.fromkeys(state for found in changed for state in found))
    return [
        f"**Made from a changed tree**: {len(changed)} of {count_runs(len(records))} came from "
        f"code that is in no commit ({states}).",
        "",
    ]


def spent(published: Runs) -> str:
    """Say how long the runs took."""
    minutes = round(published.about["minutes"])
    return "under a minute" if minutes < 1 else f"{minutes} minute{'s' if minutes > 1 else ''}"


def _from_here(folder: Path) -> str:
    """Name a folder relative to the current one; a folder elsewhere by its name alone."""
    here, folder = Path.cwd(), folder.resolve()
    return folder.relative_to(here).as_posix() if folder.is_relative_to(here) else folder.name


def claimed(runs: Runs) -> dict[str, int]:
    """Count the claims that name each measure."""
    return Counter(str(Measure.parse(claim["measure"])) for claim in runs.about["claims"])


def headline(measures: dict[str, int]) -> str:
    """Choose the measure of most claims: the first of equals, the final accuracy if none."""
    return max(measures, key=lambda text: measures[text]) if measures else USUAL_MEASURE


def _suiting(comparison: Comparison, measures: dict[str, int]) -> str:
    """Choose the kind of picture that suits the measures and the sweep."""
    axes = numeric_axes(comparison.records)
    if comparison.measure.axis is not None:
        return "over"
    if axes and len({record.axes[axes[0]] for record in comparison.records}) > 2:
        return "over"
    if any(looks_inside(Measure.parse(text)) for text in measures):
        return "probes"
    if any(text.startswith(("steps_to(", "seconds_to(")) for text in measures):
        return "curves"
    return "values" if axes or len(comparison.arms) < 3 else "differences"


def _probe(comparison: Comparison, kind: str) -> dict[str, str]:
    """Choose the probe that the measure looks at."""
    measure = comparison.measure
    if kind != "probes" or not looks_inside(measure) or "." not in measure.arguments[0]:
        return {}
    return {"probe": measure.arguments[0].partition(".")[0]}


def _of_figure(comparison: ShownComparison, kind: str) -> ShownComparison:
    """Compare by the metric if the measure is over the drawn axis and has no value at a point."""
    if comparison.measure.axis is None or kind != "over":
        return comparison
    metrics = comparison.measure.metrics
    return compare(comparison.runs, measure=f"final({metrics[0]})" if metrics else USUAL_MEASURE)


def _measured(published: Runs, measures: list[str]) -> list[str]:
    """Write tables of the other measures of claims: mean and interval of each arm."""
    lines: list[str] = []
    for axis in dict.fromkeys(Measure.parse(text).axis for text in measures):
        own = [text for text in measures if Measure.parse(text).axis == axis]
        found = [compare(published, measure=text) for text in own]
        rows = []
        for arms in zip(*(one.arms for one in found), strict=True):
            rows.append([arms[0].name])
            for arm in arms:
                spread = f", {interval(arm.mean.interval)}" if len(arm.sample) > 1 else ""
                rows[-1].append(f"{number(arm.mean.estimate)}{spread}" if len(arm.sample) else "-")
        lines += ["", *markdown_table(["arm", *own], rows)]
    title = ["", "## What else the claims measure", "", "Means, with their 95% intervals."]
    return [*title, *lines] if lines else []


def _source(runs: Runs) -> str | None:
    """Read the source from the config, if the config is still there."""
    file = Path(runs.about.get("config") or "")
    return read(file, ()).value.get("source") if file.is_file() else None


def _check_finished(runs: Runs) -> None:
    unfinished = [run for run in runs if run.state not in FINISHED]
    if unfinished or not len(runs):
        first = f" ({unfinished[0].path.name}: {unfinished[0].state})" if unfinished else ""
        raise UserError(
            f"{runs.path}: {len(unfinished)} of {len(runs)} runs are not finished{first}; "
            "`normlab run` with the same config goes on with them"
        )


def _check_clean(runs: Runs) -> None:
    """Refuse runs of code that is in no commit, because nobody can say what it did."""
    changed = [run for run in (*runs.runs, *runs.trials) if changes_of(run.provenance)]
    if changed:
        first = changed[0]
        raise UserError(
            f"{runs.path}: {count_runs(len(changed))} of {len(runs) + len(runs.trials)} "
            f"(trials counted) came from a changed tree, as {first.path.name} from "
            f"{changes_of(first.provenance)[0]}; commit the changes to normlab, and run the config "
            "again with another --out"
        )


def _check_verdicts(before: list[Verdict], after: list[Verdict], folder: Path) -> None:
    for one, other in zip(before, after, strict=True):
        if one.outcome != other.outcome or one.registered != other.registered:
            raise UserError(
                f"{folder}: by the published numbers the claim '{one.claim.says}' is "
                f"{other.outcome}, by the runs' own {one.outcome}: it hangs on the seventh digit"
            )
