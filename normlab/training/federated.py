"""Trains in rounds on clients that do not share their examples (`data.shards`).

One step of the program is one round: every client begins from the server's network, takes
`train.local_steps` steps on its own examples, and the server averages what the clients come back
with (FedAvg, McMahan et al. 2017, arXiv:1602.05629). Between rounds the state is the server's, so
evaluation, probes and checkpoints are those of any run. `train.batch_size` counts the examples of
all clients in a round.

The averages of momenta go on into the next round. A learning rate is that of the round.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from normlab.adapters.classifier import Classifier
from normlab.adapters.freezing import freeze
from normlab.core import Array
from normlab.errors import UserError, require_field
from normlab.models.slots import NORM, parameter_role
from normlab.training import gradients
from normlab.training.program import Program, Updated
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData, Meter, TrainState
from normlab.training.streams import stream_key


class Clients(NamedTuple):
    """The state of the optimiser, and what the clients keep.

    Attributes:
        inner: the averaged state of the clients' optimisers.
        own: the normalisers' parameters and states of each client, with a leading axis over
            clients and zeros elsewhere; empty if all is averaged.
    """

    inner: Any
    own: Any


@dataclass(frozen=True)
class Federated(Program):
    """A program whose steps are rounds.

    Attributes:
        clients: the number of clients, whose examples lie one after the other in the data.
    """

    clients: int = 1

    def __post_init__(self) -> None:
        require_rounds(self.recipe, self.clients, self.network.is_ours)
        require_field(self.mesh.data == 1, "mesh", self.mesh.data, "of one device with data.shards")

    @property
    def personal(self) -> bool:
        """Whether each client is tested with its own normalisers, on its own test examples."""
        return self.recipe.local_normalisers

    def begin(self, params: Any, norm_state: Any, seed: Array | int = 0) -> TrainState:
        """Make the state before the first round."""
        state = super().begin(params, norm_state, seed)
        own = ()
        if self.personal:
            whole = params, norm_state
            own = _local(jax.tree.map(lambda leaf: jnp.stack([leaf] * self.clients), whole))
        return state._replace(opt_state=Clients(state.opt_state, own))

    def order(self, seed: Array | int, epoch: Array | int, examples: int) -> Array:
        """Draw an order in which every batch has equally many examples of each client."""
        key = jax.random.fold_in(stream_key(seed, "order"), epoch)
        each, share = examples // self.clients, self.recipe.batch_size // self.clients
        rounds = each // share
        keys = jax.random.split(key, self.clients)
        within = jax.vmap(lambda key: jax.random.permutation(key, each))(keys)
        whole = within + each * jnp.arange(self.clients, dtype=within.dtype)[:, None]
        used, rest = jnp.split(whole, [rounds * share], axis=1)
        used = used.reshape(self.clients, rounds, share).swapaxes(0, 1)
        return jnp.concatenate([used.ravel(), rest.ravel()])

    def updated(self, state: TrainState, images: Array, labels: Array, key: Array) -> Updated:
        """Let every client take its steps, and average."""
        shape = self.clients, self.recipe.local_steps, -1
        images = images.reshape(*shape, *images.shape[1:])
        keys = jax.random.split(key, shape[:2])
        server, clients = (state.params, state.norm_state), state.opt_state

        def client(own: Any, *batches: Array) -> Any:
            begun = (*(_with_local(server, own) if self.personal else server), clients.inner)

            def step(now: Any, batch: Any) -> Any:
                found = self._gradient(state.step, now[0], now[1], *batch)
                updates, moved = self.optimizer.update(found.gradient, now[2], now[0])
                params = optax.apply_updates(now[0], updates)
                # Counts of steps stay those of the round until it is over.
                kept = jax.tree.map(lambda new, old: new if _moves(new) else old, moved, begun[2])
                counts = [leaf for leaf in jax.tree.leaves(moved) if not _moves(leaf)]
                return (params, found.norm_state, kept), (found.loss, found.correct, counts)

            now, (loss, correct, counts) = lax.scan(step, begun, batches)
            rest = iter(counts)
            counted = jax.tree.map(lambda leaf: leaf if _moves(leaf) else next(rest)[0], now[2])
            return (*now[:2], counted), (loss, correct)

        ended, (loss, correct) = jax.vmap(client, in_axes=(0 if self.personal else None, 0, 0, 0))(
            clients.own, images, labels.reshape(shape), keys
        )
        params, norm_state, inner = jax.tree.map(_averaged, ended)
        own = _local(ended[:2]) if self.personal else ()
        # A gradient that is not finite shows in the parameters of its client.
        opt_state = Clients(inner, own)
        return Updated(loss.mean(), correct.sum(), loss, params, norm_state, opt_state)

    def _gradient(self, round_: Array, params: Any, norm_state: Any, *batch: Any) -> Any:
        """Compute the gradient of a client's batch; with fixed statistics from some round on."""
        after = self.recipe.fixed_statistics_after
        given = self.recipe, params, norm_state, *batch
        if after is None:
            return gradients.of_batch(self.network, *given)
        fixed = Classifier(freeze(self.model))
        return lax.cond(
            round_ >= after,
            lambda: gradients.of_batch(fixed, *given),
            lambda: gradients.of_batch(self.network, *given),
        )

    def optimizer_state(self, state: TrainState) -> Any:
        """Return the average of the clients' optimisers."""
        return state.opt_state.inner

    def weights(self, state: TrainState, params: Any, norm_state: Any) -> tuple[Any, Any]:
        """Return what an evaluation takes: each client's network, if it has its own normalisers."""
        if not self.personal:
            return params, norm_state
        return jax.vmap(lambda own: _with_local((params, norm_state), own))(state.opt_state.own)

    def evaluate_batch(
        self,
        params: Any,
        norm_state: Any,
        data: DeviceData,
        index: Array | None,
        counts: Array,
        part: Any = "test",
    ) -> tuple[Meter, Array]:
        """Evaluate the server's network, or each example by the network of its client."""
        evaluate = super().evaluate_batch
        if not self.personal:
            return evaluate(params, norm_state, data, index, counts, part)
        if index is None:
            raise UserError(
                "local_normalisers takes data that fit into the memory, where the place of an "
                "example tells its client: give NORMLAB_DATA_MEMORY, or take fewer examples"
            )
        owner = index * self.clients // len(getattr(data, part).labels)

        def client(params: Any, norm_state: Any, number: Array) -> Any:
            own = jnp.where(owner == number, counts, 0)
            return evaluate(params, norm_state, data, index, own, part)

        numbers = jnp.arange(self.clients, dtype=owner.dtype)
        meters, logits = jax.vmap(client)(params, norm_state, numbers)
        whole = jax.tree.map(lambda leaf: leaf.sum(axis=0), meters)
        return whole, logits[owner, jnp.arange(len(owner))]


def require_rounds(recipe: Recipe, clients: int, is_ours: bool) -> None:
    """Check that a recipe can be followed in rounds of clients.

    Args:
        recipe: the recipe.
        clients: the number of clients.
        is_ours: whether the model is one of this library.

    Raises:
        FieldError: it cannot.
    """
    count = clients * recipe.local_steps
    allowed = f"a multiple of {clients} clients x {recipe.local_steps} local_steps, because it "
    allowed += "counts the examples of a round"
    require_field(recipe.batch_size % count == 0, "batch_size", recipe.batch_size, allowed)
    require_field(recipe.accumulate == 1, "accumulate", recipe.accumulate, "1 with data.shards")
    for field in ("ema", "private"):
        value = getattr(recipe, field)
        require_field(value is None, field, value, "null with data.shards")
    known = not recipe.local_normalisers or is_ours
    allowed = "false for a model of your own, whose normalisers have no known names"
    require_field(known, "local_normalisers", recipe.local_normalisers, allowed)


def _moves(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _averaged(leaf: Array) -> Array:
    return leaf.mean(axis=0) if _moves(leaf) else leaf[0]


def _is_local(path: tuple[Any, ...]) -> bool:
    """Return whether a leaf of (params, state) belongs to a normaliser."""
    return getattr(path[0], "idx", 0) == 1 or parameter_role(path) == NORM


def _local(tree: Any) -> Any:
    """Return a tree over clients in which what is no normaliser's is a zero, which nobody reads."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if _is_local(path) else jnp.zeros_like(leaf, shape=leaf.shape[:1]),
        tree,
    )


def _with_local(server: Any, own: Any) -> Any:
    """Return the server's parameters and state with a client's own normalisers."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, mine: mine if _is_local(path) else leaf, server, own
    )
