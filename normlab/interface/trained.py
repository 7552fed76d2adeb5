"""Gives a trained run its answers for images, its mistakes and the hardest examples."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

from normlab.errors import UserError
from normlab.evidence.answers import (
    ClassAccuracy,
    HardExample,
    class_accuracies,
    confusion,
    hardest,
)
from normlab.reports.figures.answers import draw_confusion, draw_examples
from normlab.store import loading
from normlab.store.outcomes import Outcomes, read_outcomes, write_outcomes
from normlab.store.run import Run
from normlab.store.runs import Runs


@dataclass(frozen=True)
class Predictions:
    """A network's answers for some images.

    Attributes:
        classes: the names of the classes.
        probabilities: `(N, K)` float32.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray = field(repr=False)

    @property
    def labels(self) -> np.ndarray:
        """The most probable class of each image, `(N,)` integers."""
        return self.probabilities[:, : len(self.classes)].argmax(axis=1)

    @property
    def names(self) -> list[str]:
        """The name of the most probable class of each image."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        sure = self.probabilities.max(axis=1)
        each = [f"{name} ({p:.2f})" for name, p in zip(self.names[:5], sure, strict=False)]
        return f"<Predictions: {', '.join(each)}{', ...' if len(self) > 5 else ''}>"


class TrainedRun(Run):
    """A `Run` that also gives the answers of its trained network.

    The first answer loads the data, whose statistics standardise the images.
    """

    @cached_property
    def _network(self) -> Any:
        from normlab.engine.outcomes import TrainedNetwork

        return TrainedNetwork(self.path, self.config)

    def predict(self, images: Any) -> Predictions:
        """Return the network's answers.

        Args:
            images: `(N, H, W, C)` or one image `(H, W, C)`, in 0..255, as the data have them.

        Raises:
            UserError: the images have another shape or range, or the run has no checkpoint.
        """
        found = self._network.probabilities(images)
        return Predictions(tuple(map(str, self._network.data.classes)), found)

    def outcomes(self) -> Outcomes:
        """Return the answers for the test set; they are written beside the run if they were not.

        Raises:
            UserError: the run is not finished, or has neither answers nor a checkpoint.
        """
        found = read_outcomes(self.path)
        if found is None:
            if self.state != "done":
                raise UserError(f"{self.path} is {self.state}: only a run that is done has answers")
            found = self._network.answers()
            write_outcomes(self.path, found)
        return found

    def evaluate(self, policy: Any, **settings: Any) -> Any:
        """Evaluate the trained network by a policy, on a stream of test batches.

        Args:
            policy: a policy such as `normlab.policies.Tent()`.
            settings: those of `normlab.policies.evaluate`: `stream`, `batch_size`, `corruptions`,
                `severity`, ...

        Raises:
            UserError: a setting cannot work, or the run has no checkpoint.
        """
        return self._network.evaluate(policy, **settings)

    def confusion(self) -> np.ndarray:
        """Count test examples by true class (row) and predicted class (column)."""
        return confusion(self.outcomes())

    def class_accuracies(self) -> list[ClassAccuracy]:
        """Return the accuracy in each class, with Wilson's 95% interval over test examples."""
        return class_accuracies(self.outcomes())

    def hardest(self, most: int = 12) -> list[HardExample]:
        """List the test examples to whose class the network gives the least probability."""
        return hardest([self.outcomes()], most)

    def plot(self, kind: str = "confusion", most: int = 12) -> Figure:
        """Draw the confusion matrix ("confusion"), or the hardest images ("hardest")."""
        if kind == "confusion":
            return draw_confusion(self.outcomes())
        if kind != "hardest":
            raise UserError(f"there is no plot '{kind}' of a run: confusion or hardest")
        return draw_examples(self.hardest(most), self._network.data.test.images)


def trained(found: Runs | Run) -> Any:
    """Give runs on disk the methods of `TrainedRun`; records of published runs stay as they are."""
    if isinstance(found, Run):
        return TrainedRun(found.path, found.arm, found.seed, found.axes)
    runs = [trained(run) if isinstance(run, Run) else run for run in found.runs]
    parts = [cast(Runs, trained(part)) for part in found.parts]
    return replace(found, runs=runs, parts=parts)


def load(path: str | Path) -> Any:
    """Load an experiment or a run from its folder, as `normlab.store.loading.load` does.

    Its runs also answer for their networks: `run.predict(images)`, `run.confusion()`,
    `run.class_accuracies()`, `run.hardest()`, `run.plot()`, `run.evaluate(policy)`.

    Raises:
        UserError: the folder is neither.
    """
    return trained(loading.load(path))
