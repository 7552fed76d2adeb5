"""Private training: which examples a step sees, and what all steps together reveal of one.

Every step takes each example with the same chance, apart from all others (Poisson sampling), clips
the gradient of each and adds noise to their sum (Abadi et al. 2016, arXiv:1607.00133). The account
of it is kept by Google's `dp_accounting`, the extra `normlab[private]`.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import special

from normlab.adapters.classifier import Classifier
from normlab.catalogue import NORMS
from normlab.core import Array, Normaliser
from normlab.errors import FieldError, UserError

LIBRARY = "dp_accounting"
"""The library that computes epsilon."""

OVERFLOW = 1e-3
"""The chance that any step of a run has more examples than there is room for, as a share of delta.
Examples without room are left out of that step."""


@dataclass(frozen=True)
class Privacy:
    """The settings of private training (DP-SGD).

    Attributes:
        clip: the greatest norm of the gradient of one example, which is scaled down to it.
        noise_multiplier: the deviation of the noise in the sum of the gradients, over `clip`.
        delta: the chance with which the bound `epsilon` need not hold; it must be smaller than one
            over the number of examples.
    """

    clip: float
    noise_multiplier: float
    delta: float

    def room(self, examples: int, batch: int, steps: int, multiple: int = 1) -> int:
        """Return the number of examples that a step has room for.

        Args:
            examples: the number of training examples.
            batch: the expected number of examples of a step.
            steps: the number of steps of the run.
            multiple: the room is a multiple of this number.

        >>> Privacy(clip=1.0, noise_multiplier=1.0, delta=1e-5).room(50_000, 128, 1000)
        211
        """
        counts = np.arange(batch, examples + 1)
        chance = special.bdtrc(counts, examples, batch / examples)  # of more than so many
        enough = chance <= OVERFLOW * self.delta / max(steps, 1)
        least = int(counts[np.argmax(enough)]) if enough.any() else examples
        return -(-least // multiple) * multiple

    def epsilon(self, examples: int, batch: int, steps: int) -> float:
        """Compute epsilon after some steps, for one example more or less in the training set.

        The bound is by Rényi divergences (Mironov et al. 2019, arXiv:1908.10530).

        Args:
            examples: the number of training examples.
            batch: the expected number of examples of a step.
            steps: the number of steps that were taken.
        """
        if steps == 0:
            return 0.0
        import dp_accounting  # pyright: ignore[reportMissingImports]
        from dp_accounting import rdp  # pyright: ignore[reportMissingImports]

        step = dp_accounting.PoissonSampledDpEvent(
            batch / examples, dp_accounting.GaussianDpEvent(self.noise_multiplier)
        )
        account = rdp.RdpAccountant()
        with _quiet():
            account.compose(dp_accounting.SelfComposedDpEvent(step, steps))
            return float(account.get_epsilon(self.delta))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out warnings of orders that are left out: the bound holds without them too."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def lacks_library() -> str | None:
    """Return the sentence that says how to install what computes epsilon, if it is missing."""
    if importlib.util.find_spec(LIBRARY) is not None:
        return None
    return (
        f"train.private needs the package {LIBRARY}, which computes epsilon: "
        "pip install 'normlab[private]'"
    )


def sampled(key: Array, examples: int, batch: int, steps: int, room: int) -> Array:
    """Draw the examples of some steps, `(steps, room)` int32; -1 fills up what is left.

    Each step has each example with the chance `batch / examples`.

    >>> drawn = sampled(jax.random.key(0), examples=1000, batch=50, steps=200, room=100)
    >>> drawn.shape, round(float((drawn >= 0).sum(axis=1).mean()))
    ((200, 100), 50)
    """

    def one(key: Array) -> Array:
        taken = jax.random.bernoulli(key, batch / examples, (examples,))
        return jnp.nonzero(taken, size=room, fill_value=-1)[0].astype(jnp.int32)

    return lax.map(one, jax.random.split(key, steps))


def with_noise(total: Any, key: Array, deviation: float) -> Any:
    """Add normal noise of a deviation to every number of a tree."""
    leaves, tree = jax.tree.flatten(total)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        tree,
        [
            leaf + deviation * jax.random.normal(one, leaf.shape, leaf.dtype)
            for leaf, one in zip(leaves, keys, strict=True)
        ],
    )


def serves(norm: Normaliser) -> bool:
    """Return whether a normaliser sees every example by itself and keeps nothing of it.

    >>> from normlab.norms import BatchNorm, GroupNorm
    >>> serves(BatchNorm()), serves(GroupNorm(groups=2))
    (False, True)
    """
    if norm.facts.uses_batch:
        return False
    features, params, state = _started(norm)
    x = jax.random.normal(jax.random.key(0), (4, 4, 4, features))
    moved = norm.apply(params, state, x, train=True)[1] if state else {}
    return all(np.array_equal(state[name], moved[name]) for name in state)


def _started(norm: Normaliser) -> tuple[int, Any, Any]:
    """Return a number of channels that a normaliser takes, and its parameters and state for it."""
    for features in (8, 48, 64, 512):
        with contextlib.suppress(FieldError):
            return features, *norm.init(features)
    return 8, {}, {}  # its own message comes when the network is made


def require_private(network: Classifier, norm_state: Any, devices: int = 1) -> None:
    """Raise `UserError` unless a network sees every example by itself and keeps nothing of it.

    Args:
        network: the network.
        norm_state: its state, arrays or shapes.
        devices: how many share a batch; private training takes one.
    """
    if devices > 1:
        raise UserError(f"train.private takes one device: leave out mesh, which asks for {devices}")
    norm = getattr(network.model, "norm", None) if network.is_ours else None
    if norm is not None and not serves(norm):
        name = type(norm).__name__
        why = (
            "makes the gradient of one example depend on all others"
            if norm.facts.uses_batch
            else "keeps statistics of the examples, to which no noise is added"
        )
        raise UserError(f"train.private cannot bound what {name} reveals: it {why}; {_instead()}")
    if not network.is_ours and jax.tree.leaves(norm_state):
        kept = ", ".join(sorted(norm_state))
        raise UserError(
            f"train.private cannot bound what this model reveals: training moves its {kept}, to "
            f"which no noise is added; {_instead()}"
        )


def _instead() -> str:
    """Name the normalisers that serve."""
    entries = NORMS.entries().items()
    return f"use one of {', '.join(n for n, entry in entries if _serves_by_default(entry.load()))}"


def _serves_by_default(kind: Any) -> bool:
    return kind.facts.uses_batch is False and serves(kind())
