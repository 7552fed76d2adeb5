"""Defines the contract of an evaluation policy.

A policy prepares once, from the trained network and training images (`begin`). Then it answers one
test batch after another (`answer`), without labels, and may learn from each. Both are pure: what a
policy remembers between batches is in the `Adapted` that it passes on. A stream that begins anew
begins with the same `Adapted`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import jax

from normlab.adapters.classifier import Classifier
from normlab.adapters.statistics import Change, call_with
from normlab.core import Array
from normlab.errors import UserError


class Source(NamedTuple):
    """Training images that a policy may prepare with.

    Attributes:
        images: `(B, N, H, W, C)`, standardised: B batches of N, as training has them.
        labels: `(B, N)` integers.
        key: a JAX key.
    """

    images: Array
    labels: Array
    key: Array


class Adapted(NamedTuple):
    """A network between two test batches.

    Attributes:
        params: the parameters.
        norm_state: the normalisers' state as trained; a policy never moves it.
        last: the normalisers' state with which the last batch was answered, for probes.
        memory: what the policy remembers beside them, such as an optimiser's state.
    """

    params: Any
    norm_state: Any
    last: Any
    memory: Any = ()


@dataclass(frozen=True)
class PolicyFacts:
    """Facts about a policy that are known without running it.

    Attributes:
        paper: the paper that it comes from.
        learns: whether it changes parameters as test batches come, so that their order matters.
    """

    paper: str
    learns: bool = False


class Policy(Protocol):
    """A frozen, hashable dataclass whose fields are the policy's settings."""

    facts: ClassVar[PolicyFacts]

    def begin(self, network: Classifier, params: Any, norm_state: Any, source: Source) -> Adapted:
        """Prepare before the first test batch.

        Raises:
            UserError: the network has nothing that the policy could change.
        """
        ...

    def answer(self, network: Classifier, adapted: Adapted, images: Array) -> tuple[Array, Adapted]:
        """Return the logits `(N, classes)` of a standardised test batch, and what comes after it.

        It is compiled, so it must not depend on values.
        """
        ...


Described = TypeVar("Described", bound=type)


def policy(*, paper: str, learns: bool = False) -> Callable[[Described], Described]:
    """Mark a frozen dataclass as a policy of the catalogue, with its `PolicyFacts`."""

    def mark(cls: Described) -> Described:
        cls.facts = PolicyFacts(paper, learns)
        cls.catalogue_kind = "policy"
        return cls

    return mark


def answer_with(
    network: Classifier, params: Any, norm_state: Any, images: Array, change: Change
) -> tuple[Array, Any]:
    """Return the logits under statistics that `change` gives, and the state with them.

    A layer that keeps no statistics, such as group normalisation, computes as always.
    """
    variables = network.variables(params, norm_state)
    logits, moved = call_with(network.model, variables, images, change)
    return logits.astype("float32"), network.split(moved)[1]


def scales_and_biases(
    network: Classifier, params: Any, norm_state: Any, images: Array, share: float = 1.0
) -> Any:
    """Mark the scales and biases of the normalisers: a tree of booleans as `params`.

    Args:
        network, params, norm_state: the trained network.
        images: a batch; only its shape matters.
        share: the share of the normalisers that is marked, from the input on.

    Raises:
        UserError: no normaliser has any.
    """
    paths = network.norms_in_order(params, norm_state, images)
    paths = paths[: max(1, round(share * len(paths)))]

    def is_one(path: tuple[Any, ...], leaf: Any) -> bool:
        keys = tuple(str(getattr(part, "key", part)) for part in path)
        inside = any(keys[: len(one)] == one for one in paths)
        return inside and keys[-1] in ("scale", "bias")

    marked = jax.tree_util.tree_map_with_path(is_one, params)
    if not any(jax.tree.leaves(marked)):
        raise UserError(
            "the policy learns scales and biases of normalisers, and this network has none: give "
            "the normaliser use_scale or use_bias, or take a policy that learns nothing"
        )
    return marked
