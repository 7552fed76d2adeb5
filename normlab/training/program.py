"""A run as pure functions, compiled once for all seeds (and all learning rates, see `rates.py`).

Randomness is indexed by the step, `fold_in(fold_in(root, stream), step)`. A run that is resumed
from any step therefore continues as if it had never stopped, and no iterator has a state to save.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.stages import Lowered

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.data.augment import Augmentation, apply_all
from normlab.store import seeds
from normlab.training import averaging, gradients, metrics
from normlab.training.compiler import compiler_options, read_from_cache
from normlab.training.finite import all_finite, computed_once
from normlab.training.host_data import HostData, first_examples
from normlab.training.losses import cross_entropy
from normlab.training.projection import require_sphere
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData, Meter, TrainState
from normlab.training.streams import seed_array, stream_key

HeldOut = Literal["test", "validation"]
HELD_OUT: tuple[HeldOut, ...] = ("test", "validation")


@dataclass(frozen=True)
class Program:
    """The functions of a run, without data and without a seed.

    Attributes:
        model: a module from `normlab.models`, or any other that a `Classifier` can call.
        optimizer: any optax transformation.
        recipe: batch size, length and loss; of its seed only whether it is split matters here.
        augmentations: applied in turn to the float images (0..255) of every training batch.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    recipe: Recipe
    augmentations: tuple[Augmentation, ...] = ()

    @property
    def network(self) -> Classifier:
        """The model, called as training needs it."""
        return Classifier(self.model)

    def init(self, seed: Array | int, image_shape: tuple[int, ...]) -> TrainState:
        """Make the state before the first step; `image_shape` is `(H, W, C)`.

        Raises:
            UserError: the recipe's projection does not fit the network.
        """
        example = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        return self.begin(*self.network.init(stream_key(seed, "init"), example))

    def begin(self, params: Any, norm_state: Any) -> TrainState:
        """Make the state before the first step from the network's own.

        Raises:
            UserError: the recipe's projection does not fit the network.
        """
        require_sphere(params, self.recipe.project)
        averages = self.recipe.ema_statistics == "averaged"
        opt_state = averaging.begun(self.optimizer.init(params), norm_state if averages else None)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            norm_state=norm_state,
            opt_state=opt_state,
            meter=Meter.empty(),
            diverged=jnp.zeros((), bool),
        )

    def order(self, seed: Array | int, epoch: Array | int, examples: int) -> Array:
        """Draw a permutation of the training examples for one epoch."""
        key = jax.random.fold_in(stream_key(seed, "order"), epoch)
        return jax.random.permutation(key, examples)

    def step(
        self, state: TrainState, data: DeviceData, order: Array, seed: Array
    ) -> tuple[TrainState, Array]:
        """Take one step; also return the batch's loss, NaN from the first non-finite step on."""
        images, labels = self._batch(state.step, data, order, seed)
        key = jax.random.fold_in(stream_key(seed, "dropout"), state.step)
        loss, norm_state, correct, grads = gradients.of_batch(
            self.network, self.recipe, state.params, state.norm_state, images, labels, key
        )

        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        opt_state = averaging.with_statistics(opt_state, norm_state, self.recipe.ema)
        params = optax.apply_updates(state.params, updates)
        finite = all_finite((loss, grads, params))
        batch = jnp.asarray(len(labels), jnp.float32)
        moved = TrainState(
            step=state.step + 1,
            params=params,
            norm_state=norm_state,
            opt_state=opt_state,
            meter=Meter(
                state.meter.loss + loss * batch,
                state.meter.correct + correct,
                state.meter.examples + batch,
            ),
            diverged=state.diverged,
        )
        stopped = state._replace(diverged=jnp.ones((), bool))
        keep = computed_once(finite & ~state.diverged)
        return jax.tree.map(partial(jnp.where, keep), moved, stopped), jnp.where(
            keep, loss, jnp.nan
        )

    def _batch(
        self, step: Array, data: DeviceData, order: Array, seed: Array
    ) -> tuple[Array, Array]:
        size = self.recipe.batch_size
        per_epoch = self.recipe.steps_per_epoch(len(order))
        chosen = lax.dynamic_slice_in_dim(order, (step % per_epoch) * size, size)
        images = data.train.images[chosen].astype(jnp.float32)
        key = jax.random.fold_in(stream_key(seed, "augment"), step)
        images = apply_all(self.augmentations, key, images)
        return data.standardised(images), data.train.labels[chosen]

    def loss(self, params: Any, norm_state: Any, images: Array, labels: Array) -> tuple[Array, Any]:
        """Compute the mean training loss of a whole batch, and the normalisers' state after it.

        Dropout drops the same units in every call, so this is a function of its arguments.
        """
        key = stream_key(0, "dropout")
        given = params, norm_state, images, labels, key
        loss, (norm_state, _) = gradients.loss(self.network, self.recipe, *given)
        return loss, norm_state

    def evaluate_batch(
        self,
        params: Any,
        norm_state: Any,
        data: DeviceData,
        index: Array,
        counts: Array,
        part: HeldOut = "test",
    ) -> tuple[Meter, Array]:
        """Sum over a part's examples at `index`; `counts` is 1 for each, and 0 for padding.

        The logits `(B, K)` are returned too, for metrics and for answers.
        """
        split = getattr(data, part)
        images = data.standardised(split.images[index])
        labels = split.labels[index]
        logits, _ = self.network.apply(params, norm_state, images, train=False)
        losses = cross_entropy(logits, labels)
        # argmax would return the position of a NaN.
        correct = (logits.argmax(axis=-1) == labels) & ~jnp.isnan(logits).any(axis=-1)
        meter = Meter(
            jnp.where(counts > 0, losses, 0).sum(),
            jnp.where(correct, counts, 0).sum(),
            counts.sum(),
        )
        return meter, logits

    def averaged(
        self, params: Any, norm_state: Any, opt_state: Any, images: Array
    ) -> tuple[Any, Any]:
        """Return the parameters and the normalisers' state that an evaluation takes.

        Args:
            params, norm_state, opt_state: those after a step, of an optimiser that averages.
            images: `(B, N, H, W, C)`, batches of training images for recalibrated statistics.
        """
        chosen = self.network, self.recipe.ema_statistics
        return averaging.for_evaluation(*chosen, params, norm_state, opt_state, images)


class Compiled:
    """A `Program` compiled ahead of time for one dataset's shapes.

    Attributes:
        data: the data that it was compiled for.
        seconds: the duration of tracing and compiling.
        from_cache: number of programs that were read from a persistent cache instead.
        train_examples: number of training examples.
        parts: "test", and "validation" if the data have it.
        parameters: number of scalars in the model's parameters.
        peak_bytes: memory that a training step needs beyond its inputs, if XLA reports it.
    """

    def __init__(self, program: Program, data: DeviceData | HostData):
        started = time.perf_counter()
        self.program, self.data = program, data
        self.train_examples, *self._image_shape = data.train.images.shape
        self.parts: list[HeldOut] = [part for part in HELD_OUT if getattr(data, part) is not None]
        size = program.recipe.eval_batch_size
        self._batches: dict[HeldOut, list[tuple[Array, Array]]] = {
            part: _padded_batches(len(getattr(data, part).labels), size) for part in self.parts
        }
        self._averaged = jax.jit(program.averaged)
        self._host_order: tuple[Array, np.ndarray] | None = None

        self._split = seeds.is_split(program.recipe.seed)
        seed, of_step = jnp.zeros((), jnp.uint32), seed_array(0, self._split)
        order = jnp.arange(self.train_examples, dtype=jnp.int32)
        state = jax.eval_shape(partial(program.init, image_shape=tuple(self._image_shape)), seed)
        shuffle = partial(program.order, examples=self.train_examples)
        lowered = (
            jax.jit(program.step, donate_argnums=0).lower(
                state, *self._train_batch(order, 0), of_step
            ),
            jax.jit(shuffle).lower(seed, jnp.zeros((), jnp.int32)),
            *(
                jax.jit(partial(program.evaluate_batch, part=part)).lower(
                    state.params, state.norm_state, *self._held_out_batch(part, *batches[0])
                )
                for part, batches in self._batches.items()
            ),
        )
        had_read = read_from_cache()
        with ThreadPoolExecutor() as pool:
            options: Any = compiler_options()
            compile_one = partial(Lowered.compile, compiler_options=options)
            self._step, self._order, *evaluate = pool.map(compile_one, lowered)
        self._evaluate = dict(zip(self.parts, evaluate, strict=True))
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self.peak_bytes = getattr(self._step.memory_analysis(), "temp_size_in_bytes", None)
        self.from_cache = read_from_cache() - had_read
        self.seconds = time.perf_counter() - started

    def init(self, seed: int, program: Program | None = None) -> TrainState:
        """Make the state before the first step, by `program` if one with other rates is given."""
        program = program or self.program
        # The whole is not compiled, because that would take long for every model. The single
        # operations are compiled once for all models.
        state = program.init(seed_array(seeds.streams_of(seed)["init"]), tuple(self._image_shape))
        # Some optimisers start with the parameters as state; no buffer can be donated twice.
        return jax.tree.map(jnp.copy, state)

    def order(self, seed: int, epoch: int) -> Array:
        """Compute the order of the training examples in one epoch."""
        own = seed_array(seeds.streams_of(seed)["order"])
        return self._order(own, jnp.asarray(epoch, jnp.int32))

    def first_examples(self, count: int) -> tuple[Array, Array]:
        """Return the first training images, standardised but not augmented, and their labels."""
        return first_examples(self.data, count)

    def step(
        self, state: TrainState, order: Array, seed: int, at: int | None = None
    ) -> tuple[TrainState, Array]:
        """Take one step; the buffers of `state` are donated.

        Args:
            state: the state before it.
            order: the order of the training examples in this epoch.
            seed: the seed of augmentation and dropout.
            at: `state.step` if the caller knows it. Data on the host are gathered by it, and to ask
                the device would wait for the last step.
        """
        if isinstance(self.data, HostData) and at is None:
            at = int(state.step)
        return self._step(state, *self._train_batch(order, at or 0), seed_array(seed, self._split))

    def _train_batch(self, order: Array, at: int) -> tuple[DeviceData, Array]:
        """Return data with the batch of a step, and the order by which the step finds it."""
        if isinstance(self.data, DeviceData):
            return self.data, order
        if self._host_order is None or self._host_order[0] is not order:
            self._host_order = order, np.asarray(order)
        size = self.program.recipe.batch_size
        start = at % self.program.recipe.steps_per_epoch(self.train_examples) * size
        index = self._host_order[1][start : start + size]
        return self.data.batch("train", index), _first(len(index))

    def _held_out_batch(
        self, part: HeldOut, index: Array, counts: Array
    ) -> tuple[DeviceData, Array, Array]:
        if isinstance(self.data, DeviceData):
            return self.data, index, counts
        return self.data.batch(part, np.asarray(index)), _first(len(index)), counts

    def for_evaluation(self, state: TrainState) -> tuple[Any, Any]:
        """Return the parameters and the normalisers' state that an evaluation takes."""
        return averaging.weights_for_evaluation(
            self._averaged, self.program.recipe.batch_size, state, self.data
        )

    def evaluate(self, state: TrainState, part: HeldOut = "test") -> dict[str, float]:
        """Compute loss, accuracy and the recipe's metrics over all examples of a part."""
        total, seen, asked = Meter.empty(), [], self.program.recipe.metrics
        for found, logits in self._evaluated(state, part):
            total = jax.tree.map(jnp.add, total, found)
            if asked:
                seen.append(logits)
        loss, accuracy = total.means()
        more = metrics.of(asked, seen, getattr(self.data, part).labels)
        return {"loss": loss, "accuracy": accuracy, **more}

    def logits(self, state: TrainState, part: HeldOut = "test") -> np.ndarray:
        """Return the logits of all examples of a part, `(N, K)`, as `evaluate` computes them."""
        found = [np.asarray(logits) for _, logits in self._evaluated(state, part)]
        return np.concatenate(found)[: len(getattr(self.data, part).labels)]

    def _evaluated(self, state: TrainState, part: HeldOut) -> Iterator[tuple[Meter, Array]]:
        evaluate, chosen = self._evaluate[part], self.for_evaluation(state)
        for index, counts in self._batches[part]:
            yield evaluate(*chosen, *self._held_out_batch(part, index, counts))


@lru_cache(maxsize=8)
def _first(count: int) -> Array:
    return jnp.arange(count, dtype=jnp.int32)


def _padded_batches(examples: int, size: int) -> list[tuple[Array, Array]]:
    """Make index batches of one size; the last is padded with an index that does not count."""
    size = min(size, examples)
    batches = []
    for start in range(0, examples, size):
        index = jnp.arange(start, start + size, dtype=jnp.int32)
        counts = (index < examples).astype(jnp.float32)
        batches.append((jnp.minimum(index, examples - 1), counts))
    return batches
