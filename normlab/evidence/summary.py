"""The table of an experiment, one row an arm, read from its runs on disk."""

import statistics
from dataclasses import dataclass

from normlab.runs.directory import FINISHED, Run, Runs

HEADINGS = (
    "arm",
    "runs",
    "test accuracy",
    "steps to {target}",
    "seconds to {target}",
    "s/step",
    "failed or diverged",
)


@dataclass(frozen=True)
class ArmSummary:
    """What the runs of one arm came to.

    Attributes:
        arm: its name.
        planned: how many runs the experiment has for it.
        done: how many ended well.
        accuracies: their last test accuracies, in order of their seeds.
        steps_to_target: for each run that reached the target, the step of the first evaluation
            that showed it; so it is no finer than the evaluations are.
        seconds_to_target: seconds of training until then, without compilation and evaluation.
        seconds_per_step: of training, one a finished run.
        troubles: "seed 3 diverged at step 12", "seed 1 failed" and the like.
    """

    arm: str
    planned: int
    done: int
    accuracies: list[float]
    steps_to_target: list[int]
    seconds_to_target: list[float]
    seconds_per_step: list[float]
    troubles: list[str]


@dataclass(frozen=True)
class Summary:
    """The rows of an experiment's table; `print` shows it."""

    target: float | None
    arms: list[ArmSummary]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells as text."""
        target = "" if self.target is None else f"{self.target:g}"
        wanted = [h for h in HEADINGS if self.target is not None or "{target}" not in h]
        headings = [heading.format(target=target) for heading in wanted]
        cells = [self._cells(arm) for arm in self.arms]
        return headings, [[cell[heading] for heading in wanted] for cell in cells]

    def _cells(self, arm: ArmSummary) -> dict[str, str]:
        reached = f"{len(arm.steps_to_target)}/{arm.planned} reached"
        steps = [f"{statistics.median(arm.steps_to_target):.0f}"] if arm.steps_to_target else []
        seconds = (
            [f"{statistics.median(arm.seconds_to_target):.2f}"] if arm.seconds_to_target else []
        )
        if len(arm.steps_to_target) < arm.planned:
            steps.append(reached)
        values = (
            arm.arm,
            f"{arm.done}/{arm.planned}",
            _mean_and_deviation(arm.accuracies),
            ", ".join(steps),
            ", ".join(seconds) or "-",
            f"{statistics.median(arm.seconds_per_step):.4f}" if arm.seconds_per_step else "-",
            "; ".join(arm.troubles) or "-",
        )
        return dict(zip(HEADINGS, values, strict=True))

    def __str__(self) -> str:
        headings, rows = self.table()
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        lines = [headings, ["-" * width for width in widths], *rows]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )


def summarise(runs: Runs) -> Summary:
    """Gather an experiment's runs by arm, in the order in which the arms appear."""
    target = (runs.about.get("target") or {}).get("test_accuracy")
    by_arm: dict[str, list[Run]] = {}
    for entry in runs.entries:
        by_arm.setdefault(entry.arm, []).append(entry.run)
    return Summary(target, [_summarise_arm(arm, own, target) for arm, own in by_arm.items()])


def _summarise_arm(arm: str, runs: list[Run], target: float | None) -> ArmSummary:
    statuses = [run.status for run in runs]
    finished = [s for s in statuses if s["state"] in FINISHED and s.get("step")]
    rows = [run.metrics for run in runs if run.state == "done"]
    reached = [_first_at(own, target) for own in rows]
    hits = [row for row in reached if row is not None]
    return ArmSummary(
        arm=arm,
        planned=len(runs),
        done=len(rows),
        accuracies=[own[-1]["test_accuracy"] for own in rows],
        steps_to_target=[int(row["step"]) for row in hits],
        seconds_to_target=[row["train_seconds"] for row in hits],
        seconds_per_step=[s["train_seconds"] / s["step"] for s in finished],
        troubles=[_trouble(status) for status in statuses if status["state"] != "done"],
    )


def _first_at(rows: list[dict], target: float | None) -> dict | None:
    """The first row whose test accuracy is at least the target."""
    if target is None:
        return None
    return next((row for row in rows if row["test_accuracy"] >= target), None)


def _trouble(status: dict) -> str:
    seed = f"seed {status['seed']} " if "seed" in status else ""
    if status["state"] == "diverged":
        return f"{seed}diverged at step {status['diverged']['step']}"
    return f"{seed}{'not begun' if status['state'] == 'new' else status['state']}"


def _mean_and_deviation(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f} (one run)"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} (sd)"
