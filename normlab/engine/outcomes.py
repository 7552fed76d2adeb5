"""Asks a trained network for its answers: for any images, and for the test set of its run."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from normlab.configs import build
from normlab.configs.admission import admit_resolved
from normlab.core import Array
from normlab.data.augment import standardised
from normlab.data.dataset import Dataset
from normlab.errors import UserError
from normlab.policies.contract import Policy
from normlab.policies.evaluating import Evaluation, evaluate
from normlab.store.checkpoint_files import restore_anything
from normlab.store.layout import CHECKPOINTS
from normlab.store.outcomes import NOTHING, Outcomes, write_outcomes
from normlab.store.run import Run
from normlab.training import averaging
from normlab.training.compiled import Compiled
from normlab.training.host_data import HostData
from normlab.training.program import Program
from normlab.training.state import TrainState

AT_ONCE = 256
"""So many images go through the network together."""


def answers(probability: np.ndarray, data: Dataset) -> Outcomes:
    """Sum up the probabilities `(N, K)` that a network gives for the test set of its data."""
    labels = np.asarray(data.test.labels, np.int32)
    # A model may have more outputs than the data have classes.
    nothing = np.isnan(probability).any(axis=1)
    predicted = np.where(nothing, NOTHING, probability.argmax(axis=1))
    predicted = np.where(predicted < len(data.classes), predicted, NOTHING).astype(np.int32)
    known = np.nan_to_num(probability[np.arange(len(labels)), labels])
    return Outcomes(tuple(map(str, data.classes)), labels, predicted, known, data.test_names)


def keep_answers(run: Run, compiled: Compiled, state: TrainState, data: Dataset) -> None:
    """Write a trained run's answers for the test set, for reports that do not load jax.

    The program that evaluates computes them, so nothing is compiled for them.
    """
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # no reason to lose a trained run
        logits = compiled.logits(state).astype(np.float32)
        with np.errstate(invalid="ignore"):  # where a logit is not finite, nothing is answered
            found = softmax(logits, axis=1)
        write_outcomes(run.path, answers(found, data))


class TrainedNetwork:
    """A run's network as its evaluation takes it, with the data that standardise its images.

    The last checkpoint holds the weights, and the averages of a run that is evaluated with them.

    Args:
        path: the run's folder.
        sections: its resolved config.

    Raises:
        UserError: there is no checkpoint, or no data, or its own code is not trusted.
    """

    def __init__(self, path: Path, sections: dict[str, Any]):
        admit_resolved(sections, path)
        program, self.data = build.program(sections), build.dataset(sections)
        begun = partial(program.init, 0, self.data.train.images.shape[1:])
        like = jax.eval_shape(begun)
        on_host = HostData(self.data)
        if averaging.keeps_average(like.opt_state):
            state = TrainState(**restore_anything(path / CHECKPOINTS, like._asdict()))
            weights = averaging.weights_for_evaluation(
                jax.jit(program.averaged), program.recipe.batch_size, state, on_host
            )
        else:
            found = restore_anything(path / CHECKPOINTS)
            weights = found["params"], found.get("norm_state") or {}
        self._network, self._weights, self._recipe = program.network, weights, program.recipe
        compute = jax.jit(partial(_probabilities, program))
        self._compute = partial(compute, *weights, on_host.mean, on_host.std)

    def probabilities(self, images: Any) -> np.ndarray:
        """Return the probability of each class, `(N, K)`, for images as the data have them.

        Args:
            images: `(N, H, W, C)` or one image `(H, W, C)`, in 0..255.

        Raises:
            UserError: the images have another shape or range.
        """
        images = np.asarray(images)
        wanted = self.data.train.images.shape[1:]
        if images.shape == wanted:
            images = images[None]
        if images.ndim != 4 or images.shape[1:] != wanted or not len(images):
            raise UserError(f"images of shape (N, {', '.join(map(str, wanted))}) are needed, "
                            f"found {images.shape}")  # fmt: skip
        if images.dtype.kind == "f" and images.size and 0 < images.max() <= 1:
            raise UserError(
                f"images are in 0..255, as the data are; found none above {images.max():g}: "
                "multiply by 255"
            )
        return self._of_each(images)

    def evaluate(self, policy: Policy, **settings: Any) -> Evaluation:
        """Evaluate by a policy, on the test examples; the settings are those of `evaluate`."""
        model, variables = self._network.model, self._network.variables(*self._weights)
        settings = {"source_batch": self._recipe.batch_size, **settings}
        return evaluate(model, variables, self.data, policy, **settings)

    def answers(self) -> Outcomes:
        """Return the answers for the test set."""
        return answers(self._of_each(self.data.test.images), self.data)

    def _of_each(self, images: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(images), AT_ONCE):
            part = np.asarray(images[start : start + AT_ONCE], np.float32)
            lacking = min(AT_ONCE, len(images)) - len(part)  # one shape, so one compiled program
            padded = np.pad(part, [(0, lacking), *[(0, 0)] * (part.ndim - 1)])
            found.append(np.asarray(self._compute(padded))[: len(part)])
        return np.concatenate(found)


def _probabilities(
    program: Program, params: Any, norm_state: Any, mean: Array, std: Array, images: Array
) -> Array:
    """Compute the probability of each class, `(N, K)` float32, for images in 0..255."""
    standard = standardised(images, mean, std)
    logits, _ = program.network.apply(params, norm_state, standard, train=False)
    return jax.nn.softmax(logits.astype(jnp.float32))
