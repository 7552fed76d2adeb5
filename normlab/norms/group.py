"""Group normalisation: one mean and variance for each group of channels of each example."""

from dataclasses import dataclass
from numbers import Integral

from normlab.core import Array, Params, State, normaliser
from normlab.errors import FieldError, require_field
from normlab.ops.affine import PerExample, require_eps
from normlab.ops.moments import Sharing
from normlab.ops.normalise import normalise
from normlab.sharding import on_any_mesh


@on_any_mesh
def group_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
    mask: Array | None = None,
) -> Array:
    """Give the positions and channels of each group mean 0 and variance 1 (Wu & He 2018).

    Channels are last; group `g` holds the channels `g * C / groups` to `(g + 1) * C / groups - 1`.

    Args:
        x: `(N, ..., C)`, any floating dtype; so is the result.
        scale: `(C,)` or None for one.
        bias: `(C,)` or None for zero.
        groups: how many; a divisor of C. One is `layer_norm_image`, C is `instance_norm`.
        eps: added to the variance.
        mask: True where an element counts; as many axes as `x`, broadcast to it.

    Raises:
        FieldError: `groups` does not divide C.
        ShapeError: a group is a single value, or an argument's shape does not fit.

    >>> import jax.numpy as jnp
    >>> group_norm(jnp.array([[1.0, 3.0, 10.0, 30.0]]), groups=2).round(3).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    require_eps(eps)
    require_divisor(groups, x.shape[-1])
    sharing = Sharing(axes=tuple(range(1, x.ndim - 1)), channel_groups=groups)
    return normalise(x, sharing, scale, bias, eps=eps, mask=mask)[0]


def require_divisor(groups: int, channels: int, field: str = "groups") -> None:
    """Raise `FieldError`, with the numbers that would work, unless `groups` divides the channels.

    The error is about `field`.
    """
    if isinstance(groups, Integral) and groups >= 1 and channels % groups == 0:
        return
    divisors = [str(g) for g in range(1, channels + 1) if channels % g == 0]
    raise FieldError(
        field,
        f"{field}={groups} does not divide the {channels} channels of this layer; "
        f"{', '.join(divisors)} would",
    )


@normaliser(
    paper="arXiv:1803.08494",
    invariant_to=("example scale", "example shift"),
    group="example",
    after=("layer_norm", "instance_norm"),
    aka=("GN", "GroupNorm"),
    held_to="library",
)
@dataclass(frozen=True)
class GroupNorm(PerExample):
    """Group normalisation: statistics over the positions and channels of each group of channels.

    Attributes:
        groups: how many groups; must divide the channels of every layer it is used in. The paper
            takes 32, which only networks at least that wide can hold.

    >>> import jax.numpy as jnp
    >>> norm = GroupNorm(groups=2)
    >>> params, state = norm.init(features=4)
    >>> y, state = norm.apply(params, state, jnp.array([[1.0, 3.0, 10.0, 30.0]]), train=True)
    >>> y.round(3).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """

    groups: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_field(self.groups >= 1, "groups", self.groups, "a positive whole number")

    def init(self, features: int) -> tuple[Params, State]:
        require_divisor(self.groups, features)
        return super().init(features)

    def normalise(
        self, x: Array, scale: Array | None, bias: Array | None, mask: Array | None
    ) -> Array:
        return group_norm(x, scale, bias, groups=self.groups, eps=self.eps, mask=mask)
