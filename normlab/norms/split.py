"""Split batch normalisation: statistics, scale and bias for each domain.

Domains are whole numbers, one an example. A model that has none to give leaves them out, and
`apply` says what then.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from normlab.core import Array, Params, State, normaliser
from normlab.ops.affine import per_channel
from normlab.ops.masks import fit_mask, zero_masked
from normlab.ops.moments import ShapeError, Sharing, statistics_dtype
from normlab.ops.normalise import centre
from normlab.ops.per_example import for_each, per_example, require_count, times
from normlab.ops.running import Running, less_running, over_batch


@normaliser(
    paper="arXiv:1911.09665, arXiv:1906.03950",
    uses_batch=True,
    invariant_to=("channel scale", "channel shift"),
    group="batch",
    after=("batch_norm",),
    aka=("SplitBN", "auxiliary BN", "domain-specific BN"),
    held_to="library",
)
@dataclass(frozen=True, kw_only=True)
class SplitBatchNorm(Running):
    """Batch normalisation of each domain by itself: own statistics, own scale and bias.

    All have shape `(domains, C)`: clean and adversarial or augmented images (AdvProp), or the
    domains of domain-specific batch normalisation. Groups of a batch that differ in nothing but
    their statistics, with one scale and bias, are ghost batches: `BatchNorm(norm_batch=...)`.

    Attributes:
        domains: how many there are.

    >>> import jax.numpy as jnp
    >>> norm = SplitBatchNorm(domains=2)
    >>> x = jnp.array([[1.0], [3.0], [10.0], [30.0]])
    >>> y, state = norm.apply(*norm.init(features=1), x, train=True)
    >>> [f"{value:.1f}" for value in y.ravel()]
    ['-1.0', '1.0', '-1.0', '1.0']
    """

    domains: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("domains", self.domains)

    def init(self, features: int) -> tuple[Params, State]:
        params, state = super().init(features)
        return for_each(self.domains, params), for_each(self.domains, state)

    def apply(
        self,
        params: Params,
        state: State,
        x: Array,
        *,
        train: bool,
        mask: Array | None = None,
        domain: Array | None = None,
    ) -> tuple[Array, State]:
        """Apply it as every normaliser; `domain` is `(N,)`.

        Without it a training batch is taken in equal consecutive parts, one a domain, and in
        evaluation every example is of the first: what timm's class of this name does. With
        `axis_name` the parts are those of the whole batch, in the order of its shards.

        Raises:
            ShapeError: no domain is given and the batch has no equal parts.
        """
        if domain is None:
            if train and self.axis_name is None:
                return self._by_position(params, state, x, mask)
            domain = self._of_shard(x) if train else jnp.zeros(x.shape[0], jnp.int32)
        valid = fit_mask(jnp.ones((1,) * x.ndim, bool) if mask is None else mask, x)
        z, each = jnp.zeros(x.shape, statistics_dtype(x)), []
        for number in range(self.domains):
            own = valid & (per_example(domain, x) == number)
            here = {name: leaf[number] for name, leaf in state.items()}
            if train:
                found, moments = centre(x, over_batch(x), mask=own, axis_name=self.axis_name)
                centred, variance = found.values, moments.variance
                here = self.moved(here, moments)
            else:
                centred = jnp.where(own, less_running(x, here["mean"], valid), 0)
                variance = per_channel("variance", here["variance"], centred)
            z = jnp.where(own, centred * lax.rsqrt(variance + self.eps), z)
            each.append(here)
        state = {name: jnp.stack([here[name] for here in each]) for name in state}
        return _scale_and_shift_each(z, x, params, domain, mask), state

    def _by_position(
        self, params: Params, state: State, x: Array, mask: Array | None
    ) -> tuple[Array, State]:
        size = self._size(x.shape[0])

        def in_parts(values: Array) -> Array:
            return values.reshape(self.domains, size, *values.shape[1:])

        valid = None if mask is None else in_parts(fit_mask(mask, x))
        over = Sharing(axes=tuple(range(1, x.ndim)))
        centred, moments = centre(in_parts(x), over, mask=valid)
        each = {name: per_example(leaf, centred.x) for name, leaf in params.items()}
        y = times(centred, lax.rsqrt(moments.variance + self.eps), each)
        return y.reshape(x.shape), jax.vmap(self.moved)(state, moments)

    def _of_shard(self, x: Array) -> Array:
        """Find each example's domain by its place in the batch that all shards hold together."""
        size = self._size(x.shape[0] * lax.axis_size(self.axis_name))
        first = lax.axis_index(self.axis_name) * x.shape[0]
        return (first + jnp.arange(x.shape[0])) // size

    def _size(self, examples: int) -> int:
        """Return how many examples a domain has."""
        if examples % self.domains:
            raise ShapeError(
                f"{examples} examples cannot be split into {self.domains} equal parts, one a "
                "domain: choose another batch size, or give each example's domain"
            )
        return examples // self.domains


def _scale_and_shift_each(
    z: Array, x: Array, params: Params, which: Array, mask: Array | None
) -> Array:
    if "scale" in params:
        z = z * per_example(params["scale"][which], z).astype(z.dtype)
    if "bias" in params:
        z = z + per_example(params["bias"][which], z).astype(z.dtype)
    return zero_masked(z.astype(x.dtype), mask)
