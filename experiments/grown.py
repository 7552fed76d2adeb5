"""Grows sweeps of two equal arms look by look to 40 seeds on disk, and judges them by the command.

    python -m experiments.grown [SWEEPS]

writes `results/grown.md`. The runs are imagined, but they lie in folders as real ones do, and
`normlab verdict` reads them after every few seeds. Each sweep is grown twice: with all its looks
planned, and with a plan of five seeds to which the others were added later.
"""

import contextlib
import io
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import typer

from experiments.imagined_runs import write_list, write_run
from normlab.interface.commands.verdict import command
from normlab.measures.claims import Claim
from normlab.reports.markdown import markdown_table

SWEEPS = 50

PAGE = Path(__file__).with_name("results") / "grown.md"

LOOKS = (5, 10, 15, 20, 25, 30, 35, 40)
PLANS = {"all looks planned": LOOKS, "five seeds planned, the others added": (5,)}
CLAIM = Claim("a beats b", "final(test_accuracy)", "a", "b", "difference > 0")


def verdict_on(folder: Path) -> str:
    """Return what `normlab verdict` prints of the only claim: supported, undecided or refuted."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(typer.Exit):
        command(folder)
    said = printed.getvalue().split("\n")[1].strip()
    return said.partition(":")[0].lower()


def grow(folder: Path, rng: np.random.Generator, looks: tuple[int, ...] = LOOKS) -> dict[str, str]:
    """Grow one sweep; return for each plan the first verdict that was not "undecided", if any."""
    values = {arm: rng.normal(0.6, 0.02, looks[-1]) for arm in "ab"}
    found = dict.fromkeys(PLANS, "undecided")
    runs, before = [], 0
    for seeds in looks:
        runs += [write_run(folder, arm, seed, values[arm][seed], [CLAIM])
                 for arm in "ab" for seed in range(before, seeds)]  # fmt: skip
        before = seeds
        for name, planned in PLANS.items():
            plan = {"seeds": list(range(planned[-1])), "looks": list(planned)}
            if planned == LOOKS:
                plan = {"seeds": list(range(looks[-1])), "looks": list(looks)}
            write_list(folder, runs, [CLAIM], plan=plan)
            if found[name] == "undecided":
                found[name] = verdict_on(folder)
    return found


OPENING = """\
# Equal arms, grown to 40 seeds

`python -m experiments.grown` wrote this page: {sweeps} sweeps of two equal arms (values normal,
standard deviation 0.02, drawn by `numpy.random.default_rng(0)`), in folders as real runs have
them. `normlab verdict` was asked at 5, 10, ..., 40 seeds, and the first verdict that was not
"undecided" counts; each such verdict is wrong. At most 5% are allowed, which is {allowed:g} of
{sweeps} sweeps on average.
"""


def main(sweeps: int = SWEEPS) -> None:
    """Write the page."""
    rng, counts = np.random.default_rng(0), {name: Counter() for name in PLANS}
    for place in range(sweeps):
        with tempfile.TemporaryDirectory() as folder:
            for name, found in grow(Path(folder) / "e", rng).items():
                counts[name][found] += 1
        print(place + 1, *counts.values(), flush=True)
    kinds = ("supported", "refuted", "undecided")
    rows = [[name, *(str(own[kind]) for kind in kinds)] for name, own in counts.items()]
    opening = OPENING.format(sweeps=sweeps, allowed=sweeps / 20)
    page = [opening, *markdown_table(["plan", *kinds], rows), ""]
    PAGE.write_text("\n".join(page), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
