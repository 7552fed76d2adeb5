"""Deals the examples of a data set to clients that do not share them, as in federated learning.

Every client gets equally many; the examples of a client lie together, in the order of the clients,
and what is left over is dropped. All splits are dealt by one rule, so a client's test examples have
the classes of its training examples.
"""

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from normlab.data.dataset import Dataset, Outline, Split
from normlab.errors import UserError, require_field, require_whole


class Sharding(Protocol):
    """A frozen dataclass that deals examples; its fields are the settings."""

    @property
    def clients(self) -> int:
        """Return the number of clients."""
        ...

    @property
    def pieces(self) -> int:
        """Return the number of equal pieces that each client gets."""
        ...

    def deal(self, labels: np.ndarray) -> np.ndarray:
        """Return the indices of each client's examples, `(clients, N // clients)`.

        There are as many as whole pieces hold.
        """
        ...


Described = TypeVar("Described", bound=type)


def sharding(cls: Described) -> Described:
    """Mark a frozen dataclass as an entry of the catalogue, for a config's `data.shards`."""
    cls.catalogue_kind = "sharding"
    return cls


@sharding
@dataclass(frozen=True)
class ByLabel:
    """Sorts the examples by label, cuts them into pieces, and deals some to each client.

    Each client then has few classes (McMahan et al. 2017, arXiv:1602.05629, section 3).

    Attributes:
        clients: the number of clients.
        pieces: the number of pieces of each client.
        seed: the seed of the dealing.

    >>> ByLabel(clients=2, pieces=1).deal(np.array([1, 0, 1, 0])).tolist()
    [[1, 3], [0, 2]]
    """

    clients: int = 10
    pieces: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("clients", self.clients, 1)
        require_whole("pieces", self.pieces, 1)
        require_whole("seed", self.seed, 0, 2**32 - 1)

    def deal(self, labels: np.ndarray) -> np.ndarray:
        """Return the indices of each client's examples, sorted."""
        count = self.clients * self.pieces
        length = len(labels) // self.clients // self.pieces
        by_label = np.argsort(labels, kind="stable")
        # Even steps, so that what is dropped is spread over the classes.
        starts = np.arange(count) * len(labels) // count
        dealt = np.random.default_rng(self.seed).permutation(count).reshape(self.clients, -1)
        each = by_label[starts[dealt][..., None] + np.arange(length)]
        return np.sort(each.reshape(self.clients, -1), axis=1)


@sharding
@dataclass(frozen=True)
class Dirichlet:
    """Draws the shares of the classes of each client from a Dirichlet distribution.

    Every client gets equally many examples (Hsu et al. 2019, arXiv:1909.06335, section 3). A class
    that is used up is left out of the later clients' shares.

    Attributes:
        clients: the number of clients.
        alpha: the concentration: large for equal shares, near 0 for one class a client.
        seed: the seed of the shares and of the dealing.

    >>> Dirichlet(clients=3, alpha=0.1).deal(np.arange(30) % 3).shape
    (3, 10)
    """

    clients: int = 10
    alpha: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("clients", self.clients, 1)
        require_field(self.alpha > 0, "alpha", self.alpha, "above 0")
        require_whole("seed", self.seed, 0, 2**32 - 1)

    @property
    def pieces(self) -> int:
        """One: a client's examples are not cut."""
        return 1

    def deal(self, labels: np.ndarray) -> np.ndarray:
        """Return the indices of each client's examples, sorted."""
        rng, classes = np.random.default_rng(self.seed), int(labels.max()) + 1
        shares = rng.dirichlet(np.full(classes, self.alpha), self.clients)
        pools = [
            rng.permutation(np.flatnonzero(labels == label)).tolist() for label in range(classes)
        ]
        dealt = []
        for share in shares:
            own: list[int] = []
            while len(own) < len(labels) // self.clients:
                left = np.array([len(pool) for pool in pools])
                odds = np.where(left > 0, share, 0)
                odds = odds if odds.sum() > 0 else left.astype(float)
                missing = len(labels) // self.clients - len(own)
                drawn = np.minimum(rng.multinomial(missing, odds / odds.sum()), left)
                for pool, count in zip(pools, drawn, strict=True):
                    own += [pool.pop() for _ in range(count)]
            dealt.append(sorted(own))
        return np.array(dealt)


def dealt(data: Dataset, shards: Sharding) -> Dataset:
    """Return the data set with the examples of all splits in the order of the clients.

    Raises:
        UserError: a split has fewer examples than there are clients.
    """

    def of(split: Split) -> Split:
        chosen = shards.deal(split.labels)
        if not chosen.size:
            raise UserError(f"{len(split.labels)} examples cannot be dealt to {shards.clients}")
        return split.chosen(chosen.ravel())

    own = None if data.validation is None else of(data.validation)
    return replace(data, train=of(data.train), test=of(data.test), validation=own)


def dealt_sizes(outline: Outline, shards: Sharding) -> Outline:
    """Return the sizes of the data set after dealing."""
    names = ("train_examples", "test_examples", "validation_examples")
    parts = shards.clients * shards.pieces
    return outline._replace(**{name: getattr(outline, name) // parts * parts for name in names})
