"""Exports the plan of a sweep as JSON, for programs."""

from typing import Any

from normlab.evidence.plans import ClaimPlan, SweepPlan
from normlab.reports.plan_words import finding, source_words


def plan_json(plan: SweepPlan) -> dict[str, Any]:
    """Return a plan as values that JSON can hold."""
    return {
        "name": plan.name,
        "arms": plan.arms,
        "looks": list(plan.looks),
        "runs": plan.runs,
        "trials": plan.trials,
        "minutes": None if plan.seconds is None else plan.seconds / 60,
        "claims": [_claim_json(claim) for claim in plan.claims],
        "together": plan.together and [one._asdict() for one in plan.together],
    }


def _claim_json(plan: ClaimPlan) -> dict[str, Any]:
    claim, design = plan.claim, plan.design
    known = {
        "says": claim.says,
        "measure": str(claim.measured),
        "expect": claim.expectation.text,
        "arms": list(plan.arms),
        "finding": finding(plan),
    }
    if design is None:
        return {**known, "lacking": plan.lacking}
    noise = design.noise
    return {
        **known,
        "paired": design.form.paired if design.form.arms > 1 else None,
        "noise": {
            "deviations": list(noise.deviations),
            "correlation": noise.correlation,
            "base": noise.base,
            "degrees_of_freedom": noise.degrees,
            "source": source_words(plan),
        },
        "supported_in_four_of_five": list(plan.supported),
        "refuted_in_four_of_five": list(plan.refuted),
        "chances": [
            {
                "effect": row.effect,
                **row.chances._asdict(),
                "others_decided": row.others_decided._asdict(),
                "seeds_needed": row.seeds,
                "stated": row.stated,
            }
            for row in plan.rows
        ],
    }
