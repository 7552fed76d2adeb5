"""Evaluates a trained network by policies, on streams of test batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from zlib import crc32

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from normlab.adapters.classifier import Classifier
from normlab.adapters.nnx_models import takes_nnx
from normlab.core import Array
from normlab.data.augment import standardised
from normlab.data.corruptions import FIFTEEN, as_file, corruption
from normlab.data.dataset import Dataset
from normlab.errors import require_field, require_whole
from normlab.policies.contract import Adapted, Policy, Source
from normlab.policies.streams import STREAMS, Stream, order

AT_ONCE = 250
"""So many images are corrupted together."""

CLEAN = "clean"
"""The name of the part of a stream that is not corrupted."""


@dataclass(frozen=True)
class Setting:
    """One evaluation of a trained network.

    Attributes:
        name: the policy's name.
        policy: the policy.
        stream: the order of the test examples.
        batch_size: the number of test examples in a batch; the last one may be smaller.
    """

    name: str
    policy: Policy
    stream: Stream = "iid"
    batch_size: int = 200

    def __post_init__(self) -> None:
        known = self.stream in STREAMS
        require_field(known, "stream", self.stream, f"one of {', '.join(STREAMS)}")
        require_whole("batch_size", self.batch_size, 1)

    @property
    def words(self) -> tuple[str, ...]:
        """Its name, its stream and its batch size, by which a claim picks it."""
        return self.name, self.stream, str(self.batch_size)


@dataclass(eq=False)
class Evaluation:
    """The answers of a network under one policy, in the order in which they were given.

    Attributes:
        parts: the names of the corruptions in turn; `("clean",)` for none.
        labels: `(P, N)` int32, the true classes, for each part of the stream.
        logits: `(P, N, K)` float32.
        adapted: the network after the last batch.
    """

    parts: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray = field(repr=False)
    adapted: Adapted = field(repr=False)

    @property
    def right(self) -> np.ndarray:
        """Whether each answer is right, `(P, N)` booleans; a NaN never is."""
        known = ~np.isnan(self.logits).any(axis=-1)
        return known & (self.logits.argmax(axis=-1) == self.labels)

    @property
    def accuracy(self) -> float:
        """The share of right answers over the whole stream."""
        return float(self.right.mean())

    @property
    def accuracies(self) -> dict[str, float]:
        """The share of right answers in each part."""
        return dict(zip(self.parts, self.right.mean(axis=1).tolist(), strict=True))

    @property
    def loss(self) -> float:
        """The mean cross-entropy in nats."""
        logs = jax.nn.log_softmax(self.logits)
        return float(-np.take_along_axis(np.asarray(logs), self.labels[..., None], -1).mean())

    @property
    def commonest(self) -> float:
        """The share of the class that is answered most: near 1 where a network has collapsed."""
        counts = np.bincount(self.logits.argmax(axis=-1).ravel())
        return float(counts.max() / self.labels.size)

    def along(self, pieces: int = 10) -> np.ndarray:
        """Return the share of right answers in each of some equal pieces of the stream."""
        right = self.right.ravel()
        return np.array([part.mean() for part in np.array_split(right, min(pieces, len(right)))])

    def __repr__(self) -> str:
        return f"<Evaluation: accuracy {self.accuracy:.3f} on {self.labels.size} answers>"


@takes_nnx
def evaluate(
    model: nn.Module,
    variables: Any,
    data: Dataset,
    policy: Policy,
    *,
    stream: Stream = "iid",
    batch_size: int = 200,
    corruptions: Sequence[str] | None = None,
    severity: int = 5,
    examples: int = 1000,
    source_batch: int = 100,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a trained classifier by one policy, on a stream of test batches.

    Args:
        model: any linen classifier. An NNX module holds its own variables, so none are given.
        variables: those of the trained model; they are not changed.
        data: the data whose training images standardise, and whose test examples are the stream.
        policy: a policy, such as `normlab.policies.Tent()`.
        stream: "iid", "sorted", "changing" or "as_stored" (`normlab.policies.streams`).
        batch_size: the number of test examples in a batch.
        corruptions: names of corruptions. By default a changing stream has all fifteen of
            `normlab.data.corruptions`, and other streams have none. Unless the stream is changing,
            the network begins anew for each.
        severity: that of the corruptions, 1..5.
        examples: the number of training images that a policy may prepare with.
        source_batch: the size of the batches of these.
        seed: the seed of the order, of the corruptions and of a policy's own draws.

    Raises:
        UserError: a setting cannot work, or the network has nothing that the policy could change.

    >>> import jax, numpy as np
    >>> from normlab.data import Shapes
    >>> from normlab.models import MLP
    >>> from normlab.norms import BatchNorm
    >>> from normlab.policies import TestBatch, evaluate
    >>> data = Shapes(train_examples=40, test_examples=40, size=8).load()
    >>> model = MLP(BatchNorm(), classes=10, widths=(8,))
    >>> variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)), train=False)
    >>> found = evaluate(model, variables, data, TestBatch(), batch_size=20)
    >>> found.logits.shape, found.along(4).shape
    ((1, 40, 10), (4,))
    """
    setting = Setting("given", policy, stream, batch_size)
    params, state = Classifier(model).split(variables)
    source = source_of(data, examples, source_batch, seed)
    network = Classifier(model)
    found = evaluations(
        network, params, state, data, [setting], source, corruptions, severity, seed
    )
    return found[setting]


def source_of(data: Dataset, examples: int, batch_size: int, seed: int) -> Source:
    """Return the first training images, standardised, in whole batches.

    Raises:
        UserError: they do not fill a batch.
    """
    size = min(batch_size, len(data.train.labels))
    count = min(examples, len(data.train.labels)) // size
    require_field(count >= 1, "examples", examples, f"at least {size}, one training batch")
    images = np.asarray(data.train.images[: count * size])
    images = standardised(jnp.asarray(images), *map(jnp.asarray, data.channel_statistics()))
    labels = jnp.asarray(np.asarray(data.train.labels[: count * size]))
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return Source(images.reshape(count, size, *images.shape[1:]), labels.reshape(count, size), key)


def evaluations(
    network: Classifier,
    params: Any,
    norm_state: Any,
    data: Dataset,
    settings: Sequence[Setting],
    source: Source,
    corruptions: Sequence[str] | None = None,
    severity: int = 5,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[Setting, Evaluation]:
    """Evaluate a trained network by several settings; each corrupted picture is made once.

    Returns:
        An evaluation for each setting, or nothing at all if `should_stop` said so in between.
    """
    mean, std = map(jnp.asarray, data.channel_statistics())
    begun: dict[Policy, Adapted] = {}
    now: dict[Setting, Adapted] = {}
    answers: dict[Setting, list[tuple[str, np.ndarray, np.ndarray]]] = {}
    parts = {one: parts_of(one.stream, corruptions) for one in settings}
    for part in dict.fromkeys(part for own in parts.values() for part in own):
        images = pictures(data, part, severity, seed)
        for one in settings:
            if part not in parts[one]:
                continue
            if one.policy not in begun:
                begun[one.policy] = one.policy.begin(network, params, norm_state, source)
            fresh = one not in now or one.stream != "changing"
            adapted = begun[one.policy] if fresh else now[one]
            ordered = order(one.stream, data.test.labels, seed)
            logits = []
            for start in range(0, len(ordered), one.batch_size):
                if should_stop():
                    return {}
                batch = jnp.asarray(images[ordered[start : start + one.batch_size]])
                found, adapted = answer(one.policy, network, adapted, batch, mean, std)
                logits.append(np.asarray(found))
            now[one] = adapted
            made = part, data.test.labels[ordered], np.concatenate(logits)
            answers.setdefault(one, []).append(made)
    return {
        one: Evaluation(*map(_together, zip(*made, strict=True)), adapted=now[one])
        for one, made in answers.items()
    }


def _together(values: tuple[Any, ...]) -> Any:
    return values if isinstance(values[0], str) else np.stack(values)


@partial(jax.jit, static_argnums=(0, 1))
def answer(
    policy: Policy, network: Classifier, adapted: Adapted, images: Array, mean: Array, std: Array
) -> tuple[Array, Adapted]:
    """Answer one batch of images in 0..255 units by a policy."""
    return policy.answer(network, adapted, standardised(images, mean, std))


def parts_of(stream: Stream, corruptions: Sequence[str] | None) -> tuple[str, ...]:
    """Return the corruptions that a stream brings in turn, or "clean"."""
    if corruptions is None:
        return FIFTEEN if stream == "changing" else (CLEAN,)
    return tuple(corruptions)


def pictures(data: Dataset, part: str, severity: int, seed: int) -> np.ndarray:
    """Return the test images under a corruption, uint8, in the order of the data set."""
    images = data.test.images
    if part == CLEAN:
        return images
    corrupt = jax.jit(corruption(part, severity))
    # The name, and not its place in a list, chooses the key, so a picture is the same in any list.
    key = jax.random.fold_in(jax.random.key(seed), crc32(part.encode()))
    return np.concatenate(list(_in_chunks(corrupt, key, images)))


def _in_chunks(corrupt: Callable[..., Array], key: Array, images: np.ndarray) -> Iterator[Any]:
    for start in range(0, len(images), AT_ONCE):
        chunk = jnp.asarray(images[start : start + AT_ONCE], jnp.float32)
        found = corrupt(jax.random.fold_in(key, start), chunk)
        yield np.asarray(as_file(found), np.uint8)
