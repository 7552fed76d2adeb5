"""Collects the caveats of an experiment: unequal budgets, differences, warnings."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from normlab.evidence.mixes import copy_of_data, machine, mixes, state_of_code
from normlab.evidence.samples import trouble
from normlab.evidence.tuning_noise import TuningNoise
from normlab.store.flags import unusual
from normlab.store.layout import FINISHED
from normlab.store.record import Record
from normlab.store.run import Run
from normlab.store.seeds import seed_text

COSMETIC = {("train", "seed")}


def differing(records: list[Record]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """List the settings that differ between arms, defaults included.

    Returns:
        The dotted keys of the resolved configs that differ between arms, and the values of each
        arm.
    """
    first = {record.arm: flat(record.config) for record in _one_an_arm(records)}
    keys = dict.fromkeys(key for flat in first.values() for key in flat)
    absent = object()
    chosen = [
        key for key in keys
        if len({json.dumps(flat.get(key, "(absent)")) for flat in first.values()}) > 1
    ]  # fmt: skip
    return chosen, {
        arm: {key: flat[key] for key in chosen if flat.get(key, absent) is not absent}
        for arm, flat in first.items()
    }


def _one_an_arm(records: list[Record]) -> list[Record]:
    """Take one begun run of each arm, whose runs are configured alike except for the seed."""
    found: dict[str, Record] = {}
    for record in records:
        if record.arm not in found and record.config:
            found[record.arm] = record
    return list(found.values())


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """List a config's values by `section.key`, without the seed."""
    found = {}
    for section, values in config.items():
        if not isinstance(values, dict):
            found[section] = values
            continue
        for key, value in values.items():
            if (section, key) not in COSMETIC:
                found[f"{section}.{key}"] = value
    return found


def made_with(records: list[Record]) -> dict[str, list[str]]:
    """List the distinct hardware, versions, code and data of all runs, by heading."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        for proof in record.provenance:
            for heading, value in _facts(proof):
                found.setdefault(heading, Counter())[value] += 1
    return {heading: [value for value, _ in sorted(c.items())] for heading, c in found.items()}


def _facts(proof: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "devices", ", ".join(proof["devices"])
    yield "machine", machine(proof)
    yield "versions", ", ".join(f"{name} {v}" for name, v in proof["versions"].items() if v)
    if proof.get("git"):
        yield "code", state_of_code(proof["git"])
    for name, value in proof.get("own_code", {}).items():
        yield "own code", f"{name} {value}"
    yield "data", copy_of_data(proof["data"])
    for name, value in unusual(proof).items():
        yield "flags", f"{name}={value}"
    for name, value in proof["environment"].items():
        yield "environment", f"{name}={value}"
    for name, value in proof.get("set_by_normlab", {}).items():
        yield "set by normlab", f"{name}: {value}"


def changes_of(provenance: Iterable[dict[str, Any]]) -> list[str]:
    """List the states of the code that made a run but are in no commit."""
    dirty = (p["git"] for p in provenance if p.get("git") and "dirty" in p["git"])
    return list(dict.fromkeys(map(state_of_code, dirty)))


def warnings(records: list[Record], measure_name: str, metrics: tuple[str, ...]) -> list[str]:
    """List the reasons why the comparison may say less than it seems to."""
    found = mixes(records)
    found += _seconds_warnings(records)
    found += _budget_warnings(records)
    counts = Counter({record.arm: 0 for record in records})
    counts.update(record.arm for record in records if record.finished)
    most = max(counts.values(), default=0)
    fewer = [f"{arm} ({n} of {most})" for arm, n in counts.items() if n < most]
    if fewer:
        found.append(f"Fewer finished runs than other arms have: {'; '.join(fewer)}.")
    if measure_name == "best" and any(metric.startswith("test") for metric in metrics):
        found.append("best(...) of a test metric chooses by the test set, so it is too good.")
    found += [f"{record.arm}: {text}." for record in records if (text := trouble(record))]
    found += [
        f"{record.arm}: seed {seed_text(record.seed)}, probe {row['probe']} failed at step "
        f"{row['step']}: {row['error']}."
        for record in records
        for row in record.probes
        if "error" in row
    ]
    return found


def left_out(former: Iterable[Run | Record]) -> list[str]:
    """Name the finished runs that an experiment had before its config changed."""
    counts = Counter(run.arm for run in former if run.state in FINISHED)
    if not counts:
        return []
    total, each = counts.total(), ", ".join(f"{arm} ({n})" for arm, n in counts.items())
    runs = "A finished run is" if total == 1 else f"{total} finished runs are"
    return [f"{runs} left out, because the config does not describe them any more: {each}."]


def _seconds_warnings(records: list[Record]) -> list[str]:
    """Warn of runs that shared the machine with others."""
    at_once = {proof.get("at_once", 1) for record in records for proof in record.provenance}
    if at_once <= {1}:
        return []
    numbers = " or ".join(map(str, sorted(at_once)))
    return [
        f"Seconds were taken while {numbers} runs were made at once, each with its share of the "
        "cores: compare them with each other only (--jobs 1 takes them with all cores)."
    ]


def _budget_warnings(records: list[Record]) -> list[str]:
    """Warn of arms that were given more steps or examples than others."""
    found = []
    for words, budget in (
        ("optimiser steps", lambda r: r.status.get("steps")),
        ("examples seen", lambda r: _examples_seen(r)),
    ):
        budgets: dict[Any, list[str]] = {}
        for record in _one_an_arm(records):
            if record.status.get("steps"):
                budgets.setdefault(budget(record), []).append(record.arm)
        if len(budgets) > 1:
            each = "; ".join(f"{n:,}: {', '.join(arms)}" for n, arms in sorted(budgets.items()))
            found.append(f"The arms had unequal budgets of {words} ({each}).")
    return found


def _examples_seen(record: Record) -> int:
    return record.status["steps"] * record.config["train"]["batch_size"]


def tuning_lines(about: dict[str, Any]) -> list[str]:
    """Describe the grid that every arm was tuned on, and the choices."""
    tuning = about.get("tuning")
    if not tuning:
        return []
    grid = ", ".join(f"{axis} in {values}" for axis, values in tuning["grid"].items())
    seeds = tuning["seeds"]
    noise = TuningNoise(tuning, ())
    lines = [
        f"Every arm had the same grid: {grid}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''} "
        f"each; chosen by the mean {tuning['measure']}; the reported runs have other seeds."
    ]
    if noise.anew:
        lines.append(
            "Tuning was done anew for each reported seed, with its own share of the tuning seeds, "
            "so intervals over seeds hold the noise of the choice."
        )
    elif not noise.lacking:
        lines.append(
            "The choice is one for all reported seeds, and their intervals do not hold its noise. "
            "Drawing the tuning seeds again tells how sure it is: the share of draws in which each "
            "value would be chosen stands behind each arm's line."
        )
    for arm, found in tuning["chosen"].items():
        values = _point(found["values"])
        if noise.anew:
            counts = Counter(map(_point, found["by_seed"].values()))
            each = "; ".join(
                f"{point} for {n} seed{'' if n == 1 else 's'}" for point, n in counts.most_common()
            )
            lines.append(f"{arm}: {each} ({found['trials']} trials of {found['steps']:,} steps "
                         "together)")  # fmt: skip
            continue
        edge = ", at the edge of the grid: a wider one may do better" if found["at_edge"] else ""
        lines.append(
            f"{arm}: {values} ({found['score']:.4g}; {found['trials']} trials of "
            f"{found['steps']:,} steps together){edge}{_drawn_again(noise, arm)}"
        )
    return lines


def _point(values: dict[str, Any]) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in values.items())


def _drawn_again(noise: TuningNoise, arm: str) -> str:
    """Say how often each point of the grid is chosen when the tuning seeds are drawn again."""
    if noise.lacking:
        return ""
    shares = (f"{_point(values)} in {share:.0%}" for values, share in noise.shares(arm))
    return f"; drawn again: {', '.join(shares)}"
