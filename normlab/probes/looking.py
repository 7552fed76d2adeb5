"""Applies probes to any linen network, without a config."""

import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import optax

from normlab.adapters.modes import in_mode
from normlab.adapters.nnx_models import takes_nnx
from normlab.catalogue import snake_case
from normlab.core import Array
from normlab.errors import UserError, require_channels_last
from normlab.probes.contract import Moment, Probe, Readings, Subject


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Compute the mean over the batch, from logits `(N, K)` and integer labels `(N,)`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _no_optimizer(updates: Any, state: Any, params: Any = None) -> Any:
    raise UserError(
        "this probe measures the effect of a step and needs an optimiser: give look(..., "
        "optimizer=optax.sgd(0.1)), and opt_state= if it has already been used"
    )


NO_OPTIMIZER = optax.GradientTransformation(lambda params: (), _no_optimizer)


DROPOUT_SEED = 0
"""The seed of dropout if no key is given; every call of the loss drops the same units."""


@takes_nnx
def look(
    model: nn.Module,
    variables: Any,
    images: Array,
    labels: Array,
    probes: Iterable[Probe],
    *,
    optimizer: optax.GradientTransformation = NO_OPTIMIZER,
    opt_state: Any = None,
    loss: Callable[[Any, Array], Array] = cross_entropy,
    **call: Any,
) -> dict[str, Readings]:
    """Apply probes to a linen network, normlab's or your own, at one moment.

    A second call with the same objects for model, optimiser and loss compiles nothing.

    Args:
        model: the network, called as `model(images, **call)`. An NNX module holds its own
            variables, so none are given: `look(model, images, labels, probes)`.
        variables: the variables from `model.init` or from training: `params` and any other
            collections (`batch_stats`). They are not changed.
        images: `(N, ...)`, as the model takes them.
        labels: `(N, ...)`, as the loss takes them.
        probes: the probes, such as `[Activations(), Hessian(count=3)]`.
        optimizer: the optimiser, for probes that measure the effect of a step.
        opt_state: the optimiser's state; its initial state by default.
        loss: a function of the model's output and the labels; the mean over the batch.
        call: further arguments of the model's call, such as `rngs={"dropout": key}`. The model is
            called as in training: its own word for that (`train`, `deterministic` and the like) is
            found, unless it is given here.

    Returns:
        The readings of each probe, under its name in a config: `found["hessian"]["largest"]`.

    Raises:
        UserError: a probe lacks something that it needs; the message says what.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> from normlab.probes import Gradients, look
    >>> model = nn.Sequential([nn.Dense(8), nn.BatchNorm(use_running_average=False), nn.relu,
    ...                        nn.Dense(2)])
    >>> x, labels = jax.random.normal(jax.random.key(0), (16, 5)), jnp.arange(16) % 2
    >>> found = look(model, model.init(jax.random.key(1), x), x, labels, [Gradients()])
    >>> found["gradients"]["norm"].layers
    ('layers_0', 'layers_3')
    """
    try:
        require_channels_last("images", images.shape)
    except UserError as error:  # a person's own network may take channels first
        warnings.warn(str(error), stacklevel=2)
    params = variables["params"]
    rest = {name: value for name, value in variables.items() if name != "params"}
    if opt_state is None:
        opt_state = optimizer.init(params)
    key = (model, optimizer, loss, tuple(sorted(call.items())))
    try:
        subject = _kept_subject(*key)
    except TypeError:  # an argument cannot be hashed, such as a key for dropout
        subject = _subject(*key)
    moment = Moment(params, rest, opt_state, images, labels)
    chosen = {snake_case(type(probe).__name__): probe for probe in probes}
    return {name: probe.measure(subject, moment) for name, probe in chosen.items()}


def _subject(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Callable[[Any, Array], Array],
    call: tuple[tuple[str, Any], ...],
) -> Subject:
    told, settings = in_mode(model, True, dict(call))
    settings = {"rngs": {"dropout": jax.random.key(DROPOUT_SEED)}, **settings}

    def training_loss(params: Any, rest: Any, images: Array, labels: Array) -> tuple[Array, Any]:
        variables = {"params": params, **rest}
        output, moved = told.apply(variables, images, mutable=[*rest], **settings)
        return loss(output, labels), moved

    return Subject(model, training_loss, optimizer)


_kept_subject = lru_cache(maxsize=8)(_subject)
"""Compiled probes are cached by subject, so a second call for the same network must find it."""
