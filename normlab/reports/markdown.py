"""Writes a comparison as Markdown for a file, or as aligned columns for a terminal."""

import json
import re
from collections.abc import Callable
from typing import Any

from normlab.evidence.caveats import differing, made_with, tuning_lines
from normlab.evidence.comparison import Comparison
from normlab.evidence.doubts import hidden_failures
from normlab.evidence.remarks import read_remarks
from normlab.evidence.verdicts import Verdict
from normlab.reports.arm_table import meanings, rest_table, short_table, table
from normlab.reports.english import LEVEL_OF_CLAIMS, about_arm, about_verdict, number, raised
from normlab.reports.noise import noise_tables
from normlab.reports.ranking import headlines, ranked
from normlab.reports.text_columns import fitted, visible, wrapped

MOST_COLUMNS = 8
WIDTH = 80
"""The places of a line where nothing else is known."""


def escaped(text: str) -> str:
    """Escape text so that Markdown shows it as it is, in one line.

    >>> escaped("a*b* <i> $x$ [0.1, 0.2] p < 0.05")
    'a\\\\*b\\\\* \\\\<i> \\\\$x\\\\$ [0.1, 0.2] p < 0.05'
    """
    return re.sub(r"([\\`*$]|<(?=[A-Za-z/!?])|\](?=\()|~(?=~))", r"\\\1", visible(text))


def to_text(
    comparison: Comparison,
    width: int = WIDTH,
    wide: bool = False,
    spell: Callable[[str], str] = visible,
) -> str:
    """Write what won, the table, the verdicts and the warnings for a terminal.

    Args:
        comparison: the comparison of the arms.
        width: the places of a line. The text has no longer one, and breaks no shorter word.
        wide: whether the table has all columns, with what they mean.
        spell: what a cell passes through before the layout; `printed` for a terminal.
    """
    lines = [part for text in headlines(comparison) for part in wrapped(visible(text), width)]
    lines += ["", visible(caption(comparison)), ""]
    headings, rows = (table if wide else short_table)(comparison)
    rows = [list(map(spell, row)) for row in rows]
    lines += [*fitted(headings, rows, width), ""]
    more = [*(meanings(headings) if wide else []), *remarks(comparison)]
    lines += [part for text in more for line in text.split("\n") for part in wrapped(line, width)]
    for one in noise_tables(comparison) if wide else ():
        lines += ["", *wrapped(one.heading, width), *wrapped(one.says, width), ""]
        rows = [list(map(spell, row)) for row in one.rows]
        lines += [*fitted(one.headings, rows, width), ""]
        lines += [part for text in one.notes for part in wrapped(text, width)]
    return "\n".join(lines).rstrip("\n")


def caption(comparison: Comparison) -> str:
    """Say what the table shows, and in which order."""
    higher = comparison.measure.higher_is_better
    order = "the largest" if higher is None else "the best"
    base = f"; differences to {comparison.against}" if len(comparison.arms) > 1 else ""
    return f"{comparison.measure}, {order} first{base}"


def remarks(comparison: Comparison) -> list[str]:
    """List the lines below the table in a terminal: verdicts, tuning, warnings."""
    beware = read_remarks(comparison.runs.path).beware
    return [
        *([f"beware: {beware}"] if beware else []),
        *map(verdict_line, comparison.verdicts),
        *(f"tuning: {visible(text)}" for text in tuning_lines(comparison.runs.about)),
        *(f"note: {visible(text)}" for text in comparison.warnings),
    ]


def verdict_line(verdict: Verdict) -> str:
    """Write a claim, its standing and the verdict."""
    says = f"{visible(verdict.claim.says)} [{verdict.standing}]"
    return f"{says}\n  {visible(about_verdict(verdict))}"


def to_markdown(comparison: Comparison, command: str) -> str:
    """Write the whole report, without pictures."""
    about, beware = comparison.runs.about, read_remarks(comparison.runs.path).beware
    lines = [f"# {escaped(about['name'])}", ""]
    if comparison.question:
        lines += [escaped(comparison.question), ""]
    lines += [line for text in headlines(comparison) for line in (f"**{escaped(text)}**", "")]
    if beware:
        lines += [f"**Beware.** {beware}", ""]
    if comparison.verdicts:
        lines += ["## Claims", ""]
        for verdict in comparison.verdicts:
            lines += [
                f"- {escaped(verdict.claim.says)} ({verdict.standing}).",
                f"  {escaped(about_verdict(verdict))}",
            ]
        lines += ["", LEVEL_OF_CLAIMS, ""] if raised(comparison.verdicts) else [""]
    lines += ["## Arms", ""]
    lines += [f"{escaped(caption(comparison))}.", ""]
    lines += [*_rows(*short_table(comparison)), ""]
    others = [arm for arm in ranked(comparison) if arm.difference is not None]
    lines += [f"- {escaped(about_arm(comparison, arm))}" for arm in others]
    headings, rows = rest_table(comparison)
    lines += ["", "### The other columns", "", *_rows(headings, rows), ""]
    lines += [f"- {escaped(text)}" for text in meanings(headings)]
    lines += [
        f"- Each arm is compared with {escaped(comparison.against)}; Holm's rule corrects for all "
        f"{len(others)} arms compared.",
        "",
    ]
    unseen = limits(comparison)
    if unseen:
        lines += [unseen, ""]
    for one in noise_tables(comparison):
        lines += [f"## {escaped(one.heading)}", "", escaped(one.says), ""]
        lines += [*_rows(one.headings, one.rows), ""]
        lines += [*(f"- {escaped(text)}" for text in one.notes), ""] if one.notes else []
    keys, settings = differing(comparison.records)
    if keys:
        lines += ["## What differs between the arms", ""]
        lines += [*_settings(keys, settings), ""]
    tuned = tuning_lines(comparison.runs.about)
    if tuned:
        lines += ["## Tuning", "", *(f"- {escaped(line)}" for line in tuned), ""]
    if comparison.warnings:
        lines += ["## Warnings", "", *(f"- {escaped(text)}" for text in comparison.warnings), ""]
    lines += ["## Made with", ""]
    lines += [f"- {name}: {'; '.join(v)}" for name, v in made_with(comparison.records).items()]
    lines += [f"- report: `{command}`", ""]
    return "\n".join(lines)


def _rows(headings: list[str], rows: list[list[str]]) -> list[str]:
    return markdown_table(headings, [[*map(escaped, row)] for row in rows])


def _settings(keys: list[str], settings: dict[str, dict[str, Any]]) -> list[str]:
    """List settings in a column for each arm, or in a line for each of many arms."""
    if len(settings) > MOST_COLUMNS:
        return [
            f"- {escaped(arm)}: {', '.join(f'{k} {json.dumps(value)}' for k, value in own.items())}"
            for arm, own in settings.items()
        ]
    rows = [
        [f"`{key}`", *(json.dumps(own[key]) if key in own else "" for own in settings.values())]
        for key in keys
    ]
    return markdown_table(["key", *map(escaped, settings)], rows)


def limits(comparison: Comparison) -> str:
    """Say what the intervals cannot show: other test examples, and failures that no seed showed."""
    found, noise = [], comparison.test_noise
    if noise is not None:
        found.append(
            f"Intervals are over seeds. Which examples the test set holds adds a standard error of "
            f"{number(noise, 4)} to an accuracy as an estimate for new data; all arms share those "
            f"examples, so it moves differences less."
        )
    whole = [len(arm.sample) for arm in comparison.arms if not arm.sample.unlearned]
    seeds = min((n for n in whole if n > 1), default=0)
    if seeds and comparison.measure.metrics and comparison.measure.axis is None:
        found.append(
            f"In arms of {seeds} seeds that all learned, up to {hidden_failures(seeds):.0%} of "
            "further seeds may fail to learn (with 95% confidence), and no interval allows for "
            "those."
        )
    return " ".join(found)


def markdown_table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Write a table's lines."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(visible(cell).replace("|", r"\|") for cell in cells) + " |"

    return [line(headings), line(["---"] * len(headings)), *map(line, rows)]
