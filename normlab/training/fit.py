"""The training loop: it takes built objects, reports by events, and writes nothing."""

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import numpy as np
import optax

from normlab.adapters.nnx_models import trained
from normlab.adapters.own_model import make_classifier
from normlab.core import Array
from normlab.data.augment import Augmentation
from normlab.data.dataset import Dataset
from normlab.errors import UserError
from normlab.sharding import values
from normlab.training.compiled import Compiled
from normlab.training.events import Diverged, Emit, Lookable, Progress, Row, Saveable
from normlab.training.host_data import placed
from normlab.training.mesh import Mesh, apart
from normlab.training.optimizer import with_recipe
from normlab.training.privacy import lacks_library
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import Clock, TrainState

STEPS_AHEAD = 4
"""Number of steps that the host may dispatch before it waits: enough to keep the device busy, few
enough that Ctrl-C takes effect within a few steps."""

SECONDS_BETWEEN_PROGRESS = 0.2

METRIC_PREFIX = {"test": "test", "validation": "val"}


@dataclass(frozen=True, repr=False)
class Fitted:
    """The result of a run.

    Attributes:
        status: "done", "diverged", or "interrupted" (by `should_stop`; it can be resumed).
        state: the last finite state.
        history: the rows of metrics since the start, or since the state from which it resumed.
        clock: seconds of training and of evaluation, without compilation.
        compile_seconds: seconds of tracing and compiling in this call; 0 if that was done before.
        diverged: where and how the run diverged, or None.
        model: the trained model. A linen module is called with `variables`. An NNX module is a new
            one, in evaluation mode, which holds the trained values itself. Both take standardised
            images: less the training images' mean, over their deviation
            (`data.channel_statistics()`). None if a loop was run without `fit`.
        variables: the variables of `model` that an evaluation takes, in collections as in linen:
            averaged weights if the recipe says so.
    """

    status: Literal["done", "diverged", "interrupted"]
    state: TrainState
    history: list[dict[str, float | int]]
    clock: Clock
    compile_seconds: float
    diverged: Diverged | None = None
    model: Any = None
    variables: Any = None

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {}
        found = f", test accuracy {last['test_accuracy']:.3f}" if "test_accuracy" in last else ""
        return f"<Fitted: {self.status} at step {int(self.state.step)}{found}>"


def fit(
    model: Any,
    data: Dataset,
    optimizer: optax.GradientTransformation,
    recipe: Recipe | None = None,
    *,
    augmentations: tuple[Augmentation, ...] = (),
    mesh: Mesh | None = None,
    look_at: Collection[int] = (),
    emit: Emit = lambda event: None,
) -> Fitted:
    """Train a model from scratch and evaluate it on the test split as it goes.

    Args:
        model: from `normlab.models`, or any linen or NNX module that returns logits for images, or
            the class of one or a function that returns one. A class or a function gets the number
            of classes. A linen module and a class start anew from the seed; an NNX module starts
            from the values that it has, and it is not changed.
        data: uint8 images and labels.
        optimizer: any optax transformation. The recipe's clipping and rates are added to it.
        recipe: epochs, batch size, seed and the like.
        augmentations: functions of (key, float images in 0..255), applied in turn.
        mesh: the devices to spread each batch over; one by default.
        look_at: steps before which a `Lookable` event is emitted. The total number of steps means
            after the last one. A `normlab.Watch` can be both `look_at` and `emit`.
        emit: a function that is called with every `Event`.

    Raises:
        UserError: an argument cannot work. Nothing has been trained then.

    >>> import numpy as np, optax
    >>> from normlab.data.dataset import Dataset, Split
    >>> from normlab.models.plain import MLP
    >>> from normlab.norms import BatchNorm
    >>> labels = np.arange(64, dtype=np.int32) % 2
    >>> images = np.repeat(labels * 50 + 100, 4).astype(np.uint8).reshape(64, 2, 2, 1)
    >>> split = Split(images, labels)
    >>> data = Dataset("dark or light", split, split, ("dark", "light"))
    >>> model = MLP(norm=BatchNorm(), classes=2, widths=(8,))
    >>> fitted = fit(model, data, optax.sgd(0.5), Recipe(epochs=30, batch_size=32))
    >>> fitted.status, fitted.history[-1]["test_accuracy"]
    ('done', 1.0)
    >>> fitted.model.apply(fitted.variables, np.zeros((1, 2, 2, 1)), train=False).shape
    (1, 2)
    """
    recipe, mesh = recipe or Recipe(), mesh or Mesh()
    mesh.check(recipe.batch_size // recipe.microbatches)
    if recipe.private is not None and (lacking := lacks_library()):
        raise UserError(lacking)
    shape, data_have = data.train.images.shape[1:], f"dataset '{data.name}' has"
    module = make_classifier(model, {}, len(data.classes), shape, data_have)
    program = Program(module, with_recipe(optimizer, recipe), recipe, augmentations, mesh)
    with apart():
        compiled = Compiled(program, placed(data, mesh.spread()))
        loop = Loop(compiled, recipe.seed, emit=emit, look_at=look_at)
        fitted = loop.run(compiled.init(recipe.seed), Clock(), compile_seconds=compiled.seconds)
        variables = program.network.variables(*compiled.for_evaluation(fitted.state))
    return replace(fitted, model=trained(module, variables), variables=variables)


def never() -> bool:
    """Return False: the default of `should_stop` and `should_save`."""
    return False


@dataclass
class Loop:
    """Steps, evaluations and events, from any state to the end.

    Attributes:
        compiled: the compiled program and its data.
        seed: the seed of order and augmentation.
        emit: a function that is called with every event.
        should_stop: called before every step; True ends the run as "interrupted", and it can be
            resumed.
        should_save: called before every step; True emits a `Saveable` event. One is always emitted
            when the run ends or is interrupted.
        look_at: the steps before which a `Lookable` event is emitted. The clock does not count the
            time spent on it. The total number of steps means the end.
    """

    compiled: Compiled
    seed: int
    emit: Emit = lambda event: None
    should_stop: Callable[[], bool] = never
    should_save: Callable[[], bool] = never
    look_at: Collection[int] = ()
    _history: list[dict[str, float | int]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        recipe = self.compiled.program.recipe
        self._per_epoch = recipe.steps_per_epoch(self.compiled.train_examples)
        self._steps = recipe.epochs * self._per_epoch
        self._every = recipe.eval_every or self._per_epoch

    def run(self, state: TrainState, clock: Clock, compile_seconds: float = 0.0) -> Fitted:
        """Train from `state`, whose buffers are donated, to the last step."""
        while (step := int(state.step)) < self._steps and not bool(state.diverged):
            target = min((step // self._every + 1) * self._every, self._steps)
            state, clock = self._train_to(target, state, clock)
            if bool(state.diverged):
                return self._ended("diverged", state, clock, compile_seconds)
            if int(state.step) < target:
                return self._ended("interrupted", state, clock, compile_seconds)
            state, clock = self._measure(state, clock)
        status = "diverged" if bool(state.diverged) else "done"
        if status == "done" and self._steps in self.look_at:
            self.emit(Lookable(state, self.compiled))
        return self._ended(status, state, clock, compile_seconds)

    def _train_to(self, target: int, state: TrainState, clock: Clock) -> tuple[TrainState, Clock]:
        """Dispatch steps up to `target`, at most a few ahead of the device.

        It returns early if it should stop, or soon after a step that was not finite.
        """
        step = int(state.step)
        pending: deque[Array] = deque()
        order = self.compiled.order(self.seed, step // self._per_epoch)
        started, told = time.perf_counter(), 0.0
        while step < target:
            if self.should_stop():
                break
            if self.should_save():
                jax.block_until_ready(state)
                now = Clock(clock.train + time.perf_counter() - started, clock.evaluate)
                self.emit(Saveable(state, now))
                clock, started = now, time.perf_counter()
            if step in self.look_at:
                jax.block_until_ready(state)
                clock = Clock(clock.train + time.perf_counter() - started, clock.evaluate)
                if not bool(state.diverged):
                    self.emit(Lookable(state, self.compiled))
                started = time.perf_counter()
            state, loss = self.compiled.step(state, order, self.seed, step)
            step += 1
            if step % self._per_epoch == 0 and step < target:
                order = self.compiled.order(self.seed, step // self._per_epoch)
            pending.append(loss)
            if len(pending) > STEPS_AHEAD:
                ready = np.asarray(pending.popleft()).item()  # faster than float()
                if math.isnan(ready):
                    break
                if time.perf_counter() - told > SECONDS_BETWEEN_PROGRESS:
                    told = time.perf_counter()
                    self.emit(Progress(step - STEPS_AHEAD, self._steps, ready))
        jax.block_until_ready(state)
        clock = Clock(clock.train + time.perf_counter() - started, clock.evaluate)
        return state, clock

    def _measure(self, state: TrainState, clock: Clock) -> tuple[TrainState, Clock]:
        """Evaluate, emit a row of metrics, and reset the meter."""
        train_loss, train_accuracy = state.meter.means()
        started = time.perf_counter()
        found = {part: self.compiled.evaluate(state, part) for part in self.compiled.parts}
        clock = Clock(clock.train, clock.evaluate + time.perf_counter() - started)
        step = int(state.step)
        row = {
            "step": step,
            "epoch": step / self._per_epoch,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            **{
                f"{METRIC_PREFIX[part]}_{name}": value
                for part, values in found.items()
                for name, value in values.items()
            },
            "train_seconds": clock.train,
        }
        recipe, examples = self.compiled.program.recipe, self.compiled.train_examples
        if recipe.private is not None:
            row["epsilon"] = recipe.private.epsilon(examples, recipe.batch_size, step)
        self._history.append(row)
        self.emit(Row(row))
        self.emit(Progress(step, self._steps, train_loss))
        return self.compiled.with_empty_meter(state), clock

    def _ended(
        self,
        status: Literal["done", "diverged", "interrupted"],
        state: TrainState,
        clock: Clock,
        compile_seconds: float,
    ) -> Fitted:
        diverged = None
        if status == "diverged":
            layer, norm = largest_parameter(state.params)
            diverged = Diverged(int(state.step), layer, norm)
            self.emit(diverged)
        self.emit(Saveable(state, clock))
        return Fitted(status, state, self._history, clock, compile_seconds, diverged)


def largest_parameter(params: Any) -> tuple[str, float]:
    """Return the path and the Euclidean norm of the parameter array with the largest norm.

    >>> largest_parameter({"a": {"kernel": np.array([3.0, 4.0])}, "b": {"kernel": np.ones(1)}})
    ('a/kernel', 5.0)
    """
    norms = {
        # In float64, because norms can be very large after a divergence.
        jax.tree_util.keystr(path, simple=True, separator="/"): float(
            np.linalg.norm(values(leaf).astype(np.float64))
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    layer = max(norms, key=norms.__getitem__)
    return layer, norms[layer]
