"""Keeps and shows verdicts that were published once and are different now.

`superseded.json` lies beside the published numbers. It is a list of verdicts, the oldest first.
Each has `claim` (the claim's hash), `says`, `outcome`, `verdict` (the page's sentence), `commit`
(the commit of that page; null if there is none) and `code` (the states of the code that made the
runs). A person may add `why`, the reason for the difference.
"""

import json
from pathlib import Path
from typing import Any

from normlab.evidence.caveats import made_with
from normlab.evidence.verdicts import judge
from normlab.reports.english import about_verdict
from normlab.store.files import read_json
from normlab.store.git import last_commit
from normlab.store.layout import PUBLISHED, SUPERSEDED
from normlab.store.loading import load_runs
from normlab.store.runs import Runs
from normlab.store.shapes import TEXT
from normlab.store.writing import write_atomically

SHAPE = [
    {
        "claim": TEXT,
        "says": TEXT,
        "outcome": TEXT,
        "verdict": TEXT,
        "commit": (TEXT, None),
        "code": [TEXT],
        "why?": TEXT,
    }
]
"""The shape of that file."""


def superseded(folder: Path) -> list[dict[str, Any]]:
    """Read the former verdicts that a published folder keeps, the oldest first."""
    return read_json(folder / SUPERSEDED, SHAPE, "restore it as it was committed") or []


def supersede(folder: Path, new: Runs) -> list[dict[str, Any]]:
    """List what `superseded.json` must hold once `new` stands in the folder; write nothing.

    A former verdict is kept if the same claim is judged otherwise now, or is no longer judged.
    """
    kept = superseded(folder)
    if not (folder / PUBLISHED).is_file():
        return kept
    former = load_runs(folder)
    records = former.records()
    now = {verdict.claim.hash: verdict.outcome for verdict in judge(new)}
    origin = {
        "commit": last_commit(folder / PUBLISHED),
        "code": made_with(records).get("code", []),
    }
    return kept + [
        {
            "claim": verdict.claim.hash,
            "says": verdict.claim.says,
            "outcome": verdict.outcome,
            "verdict": about_verdict(verdict),
            **origin,
        }
        for verdict in judge(former, records)
        if now.get(verdict.claim.hash) != verdict.outcome
    ]


def write_superseded(folder: Path, verdicts: list[dict[str, Any]]) -> None:
    """Write `superseded.json`, if there is anything to keep."""
    if verdicts:
        write_atomically(folder / SUPERSEDED, json.dumps(verdicts, indent=1) + "\n")


def superseded_lines(published: Runs, former: list[dict[str, Any]]) -> list[str]:
    """Write the page's section on former verdicts; empty if there are none."""
    if not former:
        return []
    now = {verdict.claim.hash: verdict.outcome for verdict in judge(published)}
    lines = [
        "",
        "## Superseded verdicts",
        "",
        "These were published before; what stands above replaced them.",
        "",
    ]
    for one in former:
        outcome = now.get(one["claim"])
        place = f"commit {one['commit'][:10]}" if one["commit"] else "never committed"
        code = "; ".join(one["code"]) or "not recorded"
        lines += [
            f"- {one['says']} ({'no longer claimed' if outcome is None else f'now {outcome}'}).",
            f"  {one['verdict']} Published: {place}; made by the code {code}."
            + (f" {one['why']}" if one.get("why") else ""),
        ]
    return lines
