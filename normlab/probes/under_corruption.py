"""Measures the accuracy of a network on corrupted test images, in bad light or fog."""

import math
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from normlab.adapters.classifier import Classifier
from normlab.adapters.linen_places import Variables
from normlab.adapters.statistics import adapt, keeps_statistics
from normlab.core import Array
from normlab.data.augment import standardised
from normlab.data.corruptions import Corruption, corruption
from normlab.errors import UserError, require_field
from normlab.probes.contract import HeldOut, Moment, Readings, Subject, probe
from normlab.probes.formulas import scan

AT_ONCE = 500
"""The greatest number of images that go through the network together, unless a batch is larger."""


@partial(jax.jit, static_argnums=(0, 4))
def recognised(
    model: nn.Module, variables: Variables, images: Array, labels: Array, prior: float = math.inf
) -> Array:
    """Count the correct predictions of a model, batch by batch.

    Args:
        model: any linen classifier.
        variables: the variables of the trained model.
        images: `(B, n, H, W, C)`, standardised: B batches of n.
        labels: `(B, n)` integers.
        prior: the weight of the training statistics relative to those of the batch, in examples
            (see `normlab.adapt`); infinity uses the training statistics alone.
    """

    network = Classifier(model)

    def of_batch(x: Array, labels: Array) -> Array:
        own = adapt(model, variables, x, prior=prior)
        logits, _ = network.apply(*network.split(own), x, train=False)
        return (logits.argmax(axis=-1) == labels).sum()

    # The batches share their kernels, so this is one convolution over all of them.
    return jax.vmap(of_batch)(images, labels).sum()


@partial(jax.jit, static_argnums=0)
def corrupted(corruption: Corruption, held_out: HeldOut, seed: Array, amount: Array) -> Array:
    """Corrupt and standardise the test images: `(N, H, W, C)` float32."""
    images = held_out.images.astype(jnp.float32)
    worse = corruption.corrupt(jax.random.key(seed), images, amount)
    return standardised(worse, held_out.mean, held_out.std)


@probe(
    paper="arXiv:1903.12261; adapted to the test batch: arXiv:2006.16971, arXiv:2006.10963",
    leading=("darkness", "fog", "clean", "corrupted"),
)
@dataclass(frozen=True)
class UnderCorruption:
    """Measures accuracy on corrupted test images, with stored statistics and adapted ones.

    With the statistics stored in training:

    - clean: on the test images as they are.
    - darkness, glare, low_contrast, colour_cast, fog: a vector over severities for each corruption
      (see `normlab.data.light`).
    - corrupted: the mean over all corruptions and severities.

    With the statistics of batches of N test images in the same light, for each N of `batches`:

    - clean_adapted_N, darkness_adapted_N, glare_adapted_N, low_contrast_adapted_N,
      colour_cast_adapted_N, fog_adapted_N: the same as above.
    - adapted_N: the mean over all corruptions and severities.
    - gain_N: adapted_N minus corrupted.
    - clean_gain_N: clean_adapted_N minus clean.

    A network without batch statistics has nothing to adapt: adapted_N equals corrupted, and gain_N
    is 0. The test images have a fixed random order, and the last ones that do not fill a batch are
    left out. A claim names the last element of a vector (severity 5) by
    `probe(under_corruption.fog, end, last)`.

    Attributes:
        corruptions: the names of the corruptions.
        batches: the batch sizes N for adaptation, at most the number of test images.
        prior: the weight of the training statistics, in examples, when they are mixed with those of
            the test batch (Schneider et al. 2020); 0 uses the batch alone (Nado et al. 2020).
        seed: the seed of the corruptions and of the order.

    >>> UnderCorruption(batches=(8, 200), prior=16)
    UnderCorruption(corruptions=('darkness', 'glare', 'low_contrast', 'colour_cast', 'fog'),
                    batches=(8, 200), prior=16, seed=0)
    """

    corruptions: tuple[str, ...] = ("darkness", "glare", "low_contrast", "colour_cast", "fog")
    batches: tuple[int, ...] = (8,)
    prior: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_field(bool(self.corruptions), "corruptions", self.corruptions, "one at least")
        once = len(set(self.corruptions)) == len(self.corruptions)
        require_field(once, "corruptions", list(self.corruptions), "a list without repetitions")
        for name in self.corruptions:
            corruption(name)
        sizes = self.batches
        fine = all(size >= 1 for size in sizes) and len(set(sizes)) == len(sizes)
        require_field(fine, "batches", list(sizes), "a list of positive whole numbers, once each")
        require_field(self.prior >= 0, "prior", self.prior, "a number of examples, 0 or more")
        require_field(0 <= self.seed < 2**31, "seed", self.seed, "between 0 and 2^31 - 1")

    def measure(self, subject: Subject, moment: Moment) -> Readings:
        """Measure accuracies between 0 and 1: numbers, and vectors over severities."""
        if moment.held_out is None:
            raise UserError(
                "under_corruption needs the test images, and there are none here: put it into a "
                "config's 'probes', or into normlab.Watch"
            )
        test = self._in_order(moment.held_out)
        most = max(self.batches, default=1)
        if most > len(test.labels):
            raise UserError(f"batches: there are only {len(test.labels)} test images, not {most}")
        variables = Classifier(subject.model).variables(moment.params, moment.norm_state)
        some = standardised(test.images[:2], test.mean, test.std)
        adapts = keeps_statistics(subject.model, variables, some)

        def accuracies(images: Array) -> tuple[Array, ...]:
            stored = _accuracy(subject.model, variables, images, test.labels, None, math.inf)
            if not adapts:
                return (stored, *(stored for _ in self.batches))
            return stored, *(
                _accuracy(subject.model, variables, images, test.labels, size, self.prior)
                for size in self.batches
            )

        def in_light(number: int, kind: Corruption) -> tuple[Array, ...]:
            def one(carry: Array, row: tuple[Array, Array]) -> tuple[Array, tuple[Array, ...]]:
                seed, amount = row
                return carry, accuracies(corrupted(kind, test, seed, amount))

            amounts = jnp.asarray(kind.amounts, jnp.float32)
            seeds = self.seed + jnp.arange(len(amounts), dtype=jnp.int32) + 100 * number
            return scan(one, jnp.zeros(()), (seeds, amounts))[1]

        clean = accuracies(standardised(test.images, test.mean, test.std))
        named = {
            name: in_light(number, corruption(name)) for number, name in enumerate(self.corruptions)
        }
        means = [jnp.concatenate(all).mean() for all in zip(*named.values(), strict=True)]
        found: Readings = {"clean": clean[0], "corrupted": means[0]}
        found |= {name: each[0] for name, each in named.items()}
        for place, size in enumerate(self.batches, 1):
            found |= {f"adapted_{size}": means[place], f"gain_{size}": means[place] - means[0]}
            found |= {f"clean_adapted_{size}": clean[place]}
            found |= {f"clean_gain_{size}": clean[place] - clean[0]}
            found |= {f"{name}_adapted_{size}": each[place] for name, each in named.items()}
        return found

    def _in_order(self, held_out: HeldOut) -> HeldOut:
        # A published set may be sorted by class, and a batch of one class has other statistics.
        key = jax.random.key(self.seed)
        order = jax.random.permutation(key, len(held_out.labels))
        return held_out._replace(images=held_out.images[order], labels=held_out.labels[order])


def _accuracy(
    model: nn.Module,
    variables: Variables,
    images: Array,
    labels: Array,
    size: int | None,
    prior: float,
) -> Array:
    """Compute the accuracy in batches of `size`; None if the size makes no difference.

    Several batches go through the network at a time.
    """
    count = len(labels) if size is None else len(labels) // size * size
    if size is None:
        size = _divisor(count, AT_ONCE)
    batches = count // size
    together = _divisor(batches, max(1, AT_ONCE // size))
    shape = (batches // together, together, size)
    rows = tuple(leaf[:count].reshape(*shape, *leaf.shape[1:]) for leaf in (images, labels))

    def one(right: Array, row: tuple[Array, ...]) -> tuple[Array, None]:
        some, theirs = row
        return right + recognised(model, variables, some, theirs, prior), None

    right, _ = scan(one, jnp.zeros((), jnp.int32), rows)
    return right.astype(jnp.float32) / count


def _divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most `most`."""
    return next(d for d in range(min(number, most), 0, -1) if number % d == 0)
