"""What the probes of an experiment's runs saw, gathered from disk for the pictures."""

from dataclasses import dataclass, field

import numpy as np

from normlab.evidence.compare import Comparison

LOG_FROM = 30.0
"""Positive values whose largest is so many times the smallest are shown on a log scale."""


@dataclass
class Seen:
    """A quantity in all runs: by arm, seed and step.

    Attributes:
        layers: by arm, or without any where it is not one of each layer.
        values: by arm, then step: an array for each seed.
    """

    layers: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, dict[int, list[np.ndarray]]] = field(default_factory=dict)

    @property
    def dimensions(self) -> int:
        """0 for a number, 1 for one of each layer or place."""
        return max(one.ndim for own in self.values.values() for all in own.values() for one in all)

    @property
    def steps(self) -> list[int]:
        """All that it was looked at before."""
        return sorted({step for own in self.values.values() for step in own})

    @property
    def logarithmic(self) -> bool:
        """Whether it spans decades and is positive."""
        every = np.concatenate(
            [one.ravel() for own in self.values.values() for all in own.values() for one in all]
        )
        known = every[np.isfinite(every)]
        return bool(len(known) and known.min() > 0 and known.max() > LOG_FROM * known.min())


def seen(comparison: "Comparison") -> dict[str, dict[str, Seen]]:
    """What the probes of all runs saw: probe to quantity to values."""
    found: dict[str, dict[str, Seen]] = {}
    for arm in comparison.arms:
        for record in arm.records:
            for row in record.probes:
                if "values" not in row:
                    continue
                own = found.setdefault(row["probe"], {}).setdefault(row["quantity"], Seen())
                values = np.array(row["values"], float)
                own.values.setdefault(arm.name, {}).setdefault(row["step"], []).append(values)
                if row["layers"]:
                    own.layers[arm.name] = row["layers"]
    return found
