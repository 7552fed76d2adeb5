"""Exports a comparison as rows for CSV, JSON and pandas."""

import contextlib
import csv
import io
import json
import math
from typing import Any

from normlab.evidence.beyond_seeds import agreements, wider
from normlab.evidence.caveats import differing, made_with
from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.remarks import read_remarks
from normlab.evidence.verdicts import Verdict
from normlab.measures.measures import PRICES, Measure
from normlab.measures.value import NoValueError
from normlab.reports.english import about_verdict
from normlab.store.record import Record
from normlab.store.seeds import stream_columns


def arm_row(comparison: Comparison, arm: Arm) -> dict[str, Any]:
    """Give an arm's line of the report's table as numbers."""
    found, ratio = arm.difference, arm.ratio
    low, high = arm.mean.interval
    middle, boot = arm.middle_interval, arm.bootstrap
    row = {
        "arm": arm.name,
        "n": len(arm.sample),
        "planned": arm.sample.planned,
        "did_not_learn": len(arm.sample.unlearned),
        "mean": arm.mean.estimate,
        "mean_low": low,
        "mean_high": high,
        "interquartile_mean": arm.middle,
        "interquartile_mean_low": middle.low,
        "interquartile_mean_high": middle.high,
        "bootstrap_low": boot.low,
        "bootstrap_high": boot.high,
        "baseline": arm.baseline,
    }
    for name, one in (("difference", found), ("ratio", ratio)):
        ends = one.interval if one else (math.nan, math.nan)
        row |= {
            name: one.estimate if one else math.nan,
            f"{name}_low": ends[0],
            f"{name}_high": ends[1],
        }
    return row | {
        "p_better": arm.better,
        "permutation_p": arm.p,
        "holm_p": arm.holm,
        **arm.prices,
        "troubles": "; ".join(arm.sample.troubles),
    }


def run_row(record: Record, measure: Measure) -> dict[str, Any]:
    """Give a run's place in the sweep, how it ended, and its last metrics."""
    value = None
    if record.finished and measure.axis is None:
        with contextlib.suppress(NoValueError):
            value = measure.of(record)
    last = record.metrics[-1] if record.metrics else {}
    row = {
        "arm": record.arm,
        "seed": record.seed,
        **stream_columns(record.seed),
        **record.axes,
        "state": record.state,
        str(measure): None if value is None else value.number,
        "censored": None if value is None else value.censored,
        **last,
        "folder": record.path.name,
    }
    for price in PRICES:
        found = Measure(price).of(record) if record.finished else None
        row[price] = None if found is None else found.number
    return row


def to_csv(comparison: Comparison) -> str:
    """Write CSV with a line for each run."""
    rows = [run_row(record, comparison.measure) for record in comparison.records]
    headings = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """Write everything as JSON, for programs."""
    keys, settings = differing(comparison.records)
    measure = comparison.measure
    document = {
        "name": comparison.runs.about.get("name"),
        "question": comparison.question,
        "beware": read_remarks(comparison.runs.path).beware or None,
        "measure": str(measure),
        "baseline": comparison.baseline,
        "claims": [
            {
                **verdict.claim.kept(),
                "outcome": verdict.outcome,
                "registered": verdict.registered,
                "withdrawn": verdict.withdrawn,
                "retracted": verdict.retracted or None,
                "level": verdict.level,
                "estimate": verdict.contrast.estimate if verdict.contrast else None,
                "interval": verdict.interval,
                "method": verdict.contrast.method if verdict.contrast else None,
                "correlation": verdict.contrast.correlation if verdict.contrast else None,
                "beside": _beside(verdict),
                "seeds_to_decide": verdict.seeds,
                "seeds_to_decide_range": verdict.seeds_range,
                "verdict": about_verdict(verdict),
            }
            for verdict in comparison.verdicts
        ],
        "arms": [
            arm_row(comparison, arm)
            | {"seeds": arm.sample.seeds, "values": arm.sample.values.tolist(),
               "censored": arm.sample.censored.tolist(),
               "correlation": arm.difference.correlation if arm.difference else None}
            for arm in comparison.arms
        ],
        "runs": [run_row(record, measure) for record in comparison.records],
        "differs": {"keys": keys, "arms": settings},
        "beyond_seeds": [
            {"what": one.what, "estimate": one.seeds.estimate, "seeds": one.seeds.interval,
             **{f"seeds_and_{kind}": other.interval for kind, other in one.others.items()}}
            for one in wider(comparison)
        ],
        "agreement": [
            {"arm": arm.name, "baseline": arm.baseline, **one._asdict(), "beyond": one.beyond}
            for arm, one in agreements(comparison)
        ],
        "tuning": comparison.runs.about.get("tuning"),
        "made_with": made_with(comparison.records),
        "warnings": comparison.warnings,
    }  # fmt: skip
    return json.dumps(_finite(document), indent=1, ensure_ascii=False) + "\n"


def _beside(verdict: Verdict) -> dict[str, Any] | None:
    """Give the interval that does not decide, at the level of the one that does."""
    if verdict.beside is None or verdict.beside.lacking:
        return None
    speaks_of = ["seeds"] if verdict.claim.generalise is not None else ["seeds", "images"]
    return {"generalise": speaks_of, "interval": verdict.beside.at(verdict.level)}


def _finite(value: Any) -> Any:
    """Replace NaN by null and infinity by a word, because JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
