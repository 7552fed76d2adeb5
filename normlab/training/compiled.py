"""Compiles a `Program` ahead of time for one dataset's shapes and devices, and runs it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Lowered

from normlab.core import Array
from normlab.store import seeds
from normlab.training import averaging, metrics
from normlab.training.compiler import compiler_options, read_from_cache
from normlab.training.host_data import HostData, first_examples
from normlab.training.mesh import Mesh, Spread, placement
from normlab.training.program import HELD_OUT, HeldOut, Program
from normlab.training.state import DeviceData, Meter, TrainState
from normlab.training.streams import seed_array


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
        self._spread = program.mesh.spread()
        self.program, self.data = program, data.on(self._spread)
        self.train_examples, *self._image_shape = data.train.images.shape
        self.parts: list[HeldOut] = [part for part in HELD_OUT if getattr(data, part) is not None]
        size, shares = program.recipe.eval_batch_size, program.mesh.devices
        self._batches: dict[HeldOut, list[tuple[Array, Array]]] = {
            part: _padded_batches(len(getattr(data, part).labels), size, shares)
            for part in self.parts
        }
        self._host_order: tuple[Array, np.ndarray] | None = None

        self._split = seeds.is_split(program.recipe.seed)
        seed, of_step = jnp.zeros((), jnp.uint32), seed_array(0, self._split)
        state = jax.eval_shape(partial(program.init, image_shape=tuple(self._image_shape)), seed)
        shuffle = partial(program.order, examples=self.train_examples)
        order = jnp.zeros(jax.eval_shape(shuffle, seed, 0).shape, jnp.int32)
        self._lies = _lies(state, program.mesh, self._spread)
        state = _with_shardings(state, self._lies)
        weights = state.params, state.norm_state
        if program.personal:
            weights = jax.eval_shape(program.weights, state, *weights)
        whole = None if self._spread is None else self._spread.whole
        params = None if self._lies is None else self._lies.params
        self._averaged = jax.jit(program.averaged, out_shardings=(params, whole))
        lowered = (
            jax.jit(program.step, donate_argnums=0, out_shardings=(self._lies, whole)).lower(
                state, *self._train_batch(order, 0), of_step
            ),
            jax.jit(shuffle, out_shardings=whole).lower(seed, jnp.zeros((), jnp.int32)),
            *(
                jax.jit(partial(program.evaluate_batch, part=part), out_shardings=whole).lower(
                    *weights, *self._held_out_batch(part, *batches[0])
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
        own = seed_array(seed, seeds.is_split(seed))
        state = program.init(own, tuple(self._image_shape))
        if self._spread is not None:
            return self._spread.put(state, self._lies)
        # Some optimisers start with the parameters as state; no buffer can be donated twice.
        return jax.tree.map(jnp.copy, state)

    def with_empty_meter(self, state: TrainState) -> TrainState:
        """Return a state whose next row of metrics has seen no examples."""
        empty = Meter.empty()
        return state._replace(meter=empty if self._spread is None else self._spread.put(empty))

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

    def _train_batch(self, order: Array, at: int) -> tuple[DeviceData, Array | None]:
        """Return data with the batch of a step, and the order by which the step finds it."""
        if isinstance(self.data, DeviceData):
            return self.data, order
        if self._host_order is None or self._host_order[0] is not order:
            self._host_order = order, np.asarray(order)
        drawn = self._host_order[1]
        if self.program.recipe.private is not None:  # -1 is no example
            row = drawn[at % len(drawn)]
            places = np.where(row < 0, -1, np.arange(len(row))).astype(np.int32)
            return self.data.batch("train", np.maximum(row, 0)), jnp.asarray(places)[None]
        size = self.program.recipe.batch_size
        start = at % self.program.recipe.steps_per_epoch(self.train_examples) * size
        index = drawn[start : start + size]
        return self.data.batch("train", index), None

    def _held_out_batch(
        self, part: HeldOut, index: Array, counts: Array
    ) -> tuple[DeviceData, Array | None, Array]:
        if isinstance(self.data, DeviceData):
            return self.data, index, counts
        return self.data.batch(part, np.asarray(index)), None, counts

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
        chosen = self.program.weights(state, *self.for_evaluation(state))
        evaluate = self._evaluate[part]
        for index, counts in self._batches[part]:
            yield evaluate(*chosen, *self._held_out_batch(part, index, counts))


def _lies(state: TrainState, mesh: Mesh, spread: Spread | None) -> TrainState | None:
    """Choose how each array of a state lies on the devices; None for one device."""
    if spread is None:
        return None
    chosen = placement(mesh, state.params, state.opt_state)
    lies = jax.tree.map(lambda leaf: spread.whole, state)
    return lies._replace(
        params=spread.of_parameters(state.params, chosen),
        opt_state=spread.of_parameters(state.opt_state, chosen),
    )


def _with_shardings(shapes: Any, shardings: Any) -> Any:
    if shardings is None:
        return shapes
    return jax.tree.map(
        lambda leaf, lies: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies),
        shapes,
        shardings,
    )


def _padded_batches(examples: int, size: int, shares: int = 1) -> list[tuple[Array, Array]]:
    """Make index batches of one size, a multiple of the number of shares.

    The last is padded with an index that does not count.
    """
    size = -(-min(size, examples) // shares) * shares
    batches = []
    for start in range(0, examples, size):
        index = jnp.arange(start, start + size, dtype=jnp.int32)
        counts = (index < examples).astype(jnp.float32)
        batches.append((jnp.minimum(index, examples - 1), counts))
    return batches
