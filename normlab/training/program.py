"""A run as pure functions, which are compiled once for all seeds and learning rates.

Randomness is indexed by the step, `fold_in(fold_in(root, stream), step)`. A run that is resumed
from any step therefore continues as if it had never stopped, and no iterator has a state to save.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from normlab.adapters.classifier import Classifier
from normlab.core import Array
from normlab.data.augment import Augmentation, apply_all
from normlab.training import averaging, gradients, private
from normlab.training.finite import all_finite, computed_once
from normlab.training.losses import cross_entropy
from normlab.training.mesh import Mesh
from normlab.training.privacy import require_private, sampled
from normlab.training.projection import require_sphere
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData, Meter, TrainState
from normlab.training.storable import with_run_keys
from normlab.training.streams import stream_key

HeldOut = Literal["test", "validation"]
HELD_OUT: tuple[HeldOut, ...] = ("test", "validation")


class Updated(NamedTuple):
    """Holds what a batch moves.

    Attributes:
        loss: the mean over the batch.
        correct: the number of correct predictions.
        gradient: the gradient of the loss, or other numbers that show whether it was finite.
        params: the parameters after the step.
        norm_state: the normalisers' state after the step.
        opt_state: the optimiser's state after the step.
    """

    loss: Array
    correct: Array
    gradient: Any
    params: Any
    norm_state: Any
    opt_state: Any


@dataclass(frozen=True)
class Program:
    """The functions of a run, without data and without a seed.

    Attributes:
        model: a module from `normlab.models`, or any other that a `Classifier` can call.
        optimizer: any optax transformation.
        recipe: batch size, length and loss; of its seed only whether it is split matters here.
        augmentations: applied in turn to the float images (0..255) of every training batch.
        mesh: the devices that a batch is spread over.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    recipe: Recipe
    augmentations: tuple[Augmentation, ...] = ()
    mesh: Mesh = field(default_factory=Mesh)

    @property
    def network(self) -> Classifier:
        """The model, called as training needs it."""
        return Classifier(self.model)

    def init(self, seed: Array | int, image_shape: tuple[int, ...]) -> TrainState:
        """Make the state before the first step; `image_shape` is `(H, W, C)`.

        Raises:
            UserError: the recipe's projection or privacy does not fit the network.
        """
        example = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        return self.begin(*self.network.init(stream_key(seed, "init"), example), seed)

    def begin(self, params: Any, norm_state: Any, seed: Array | int = 0) -> TrainState:
        """Make the state before the first step from the network's own.

        Raises:
            UserError: the recipe's projection or privacy does not fit the network.
        """
        require_sphere(params, self.recipe.project)
        if self.recipe.private is not None:
            require_private(self.network, norm_state, self.mesh.data)
        averages = self.recipe.ema_statistics == "averaged"
        opt_state = with_run_keys(self.optimizer.init(params), stream_key(seed, "optimizer"))
        opt_state = averaging.begun(opt_state, norm_state if averages else None)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            norm_state=norm_state,
            opt_state=opt_state,
            meter=Meter.empty(),
            diverged=jnp.zeros((), bool),
        )

    def order(self, seed: Array | int, epoch: Array | int, examples: int) -> Array:
        """Draw a permutation of the training examples for one epoch, `(examples,)`.

        In private training every step has its own draw, `(steps, room)`; -1 fills up the room.
        """
        key = jax.random.fold_in(stream_key(seed, "order"), epoch)
        if self.recipe.private is None:
            return jax.random.permutation(key, examples)
        steps, room = self.recipe.steps_per_epoch(examples), self.recipe.room(examples)
        return sampled(key, examples, self.recipe.batch_size, steps, room)

    def step(
        self, state: TrainState, data: DeviceData, order: Array | None, seed: Array
    ) -> tuple[TrainState, Array]:
        """Take one step; also return the batch's loss, NaN from the first non-finite step on.

        Without an order, the training examples of `data` are the batch.
        """
        if self.recipe.private is not None and order is not None:
            given = self.network, self.recipe, self.augmentations, state, data
            found = private.of_step(*given, order[state.step % len(order)], seed)
            after, count = self._after(state, found), found.examples
        else:
            images, labels = self._batch(state.step, data, order, seed)
            key = jax.random.fold_in(stream_key(seed, "dropout"), state.step)
            after = self.updated(state, images, labels, key)
            count = jnp.asarray(len(labels), jnp.float32)
        loss, correct, grads, params, norm_state, opt_state = after
        finite = all_finite((loss, grads, params))
        moved = TrainState(
            step=state.step + 1,
            params=params,
            norm_state=norm_state,
            opt_state=opt_state,
            meter=Meter(
                state.meter.loss + loss * count,
                state.meter.correct + correct,
                state.meter.examples + count,
            ),
            diverged=state.diverged,
        )
        stopped = state._replace(diverged=jnp.ones((), bool))
        keep = computed_once(finite & ~state.diverged)
        return jax.tree.map(partial(jnp.where, keep), moved, stopped), jnp.where(
            keep, loss, jnp.nan
        )

    def updated(self, state: TrainState, images: Array, labels: Array, key: Array) -> "Updated":
        """Compute what a batch moves, finite or not."""
        given = state.params, state.norm_state, images, labels, key
        return self._after(state, gradients.of_batch(self.network, self.recipe, *given, self.mesh))

    def _after(self, state: TrainState, found: gradients.Found) -> "Updated":
        updates, opt_state = self.optimizer.update(found.gradient, state.opt_state, state.params)
        opt_state = averaging.with_statistics(opt_state, found.norm_state, self.recipe.ema)
        params = optax.apply_updates(state.params, updates)
        moved = params, found.norm_state, opt_state
        return Updated(found.loss, found.correct, found.gradient, *moved)

    def _batch(
        self, step: Array, data: DeviceData, order: Array | None, seed: Array
    ) -> tuple[Array, Array]:
        images, labels = data.train
        if order is not None:
            size = self.recipe.batch_size
            per_epoch = self.recipe.steps_per_epoch(len(order))
            chosen = lax.dynamic_slice_in_dim(order, (step % per_epoch) * size, size)
            chosen = self.mesh.cut(chosen)
            images, labels = images[chosen], labels[chosen]
        key = jax.random.fold_in(stream_key(seed, "augment"), step)
        images = apply_all(self.augmentations, key, images.astype(jnp.float32))
        return self.mesh.cut(data.standardised(images)), labels

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
        index: Array | None,
        counts: Array,
        part: HeldOut = "test",
    ) -> tuple[Meter, Array]:
        """Sum over a part's examples at `index`; `counts` is 1 for each, and 0 for padding.

        Without an index, the part of `data` is the batch. The logits `(B, K)` are returned too,
        for metrics and for answers.
        """
        images, labels = getattr(data, part)
        if index is not None:
            index = self.mesh.cut(index)
            images, labels = images[index], labels[index]
        images = self.mesh.cut(data.standardised(images))
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

    def optimizer_state(self, state: TrainState) -> Any:
        """Return the state that the optimiser itself takes."""
        return state.opt_state

    @property
    def personal(self) -> bool:
        """Return whether an example is evaluated by the network of the client that has it."""
        return False

    def weights(self, state: TrainState, params: Any, norm_state: Any) -> tuple[Any, Any]:
        """Return what `evaluate_batch` takes for a state and its weights for evaluation."""
        return params, norm_state

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
