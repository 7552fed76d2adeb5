"""The contract of a placement: what a network gives it, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from normlab.core import Array, HeldTo

Map = Callable[[Array], Array]
"""A function of an array that returns one of the same shape."""


@dataclass(frozen=True)
class PlacementFacts:
    """Facts about a placement that are known without running it.

    Attributes:
        paper: its source.
        aka: other names that it has in the literature.
        held_to: what the equations are held to (`normlab.core.HeldTo`).
    """

    paper: str
    aka: tuple[str, ...] = ()
    held_to: HeldTo = "paper"


Described = TypeVar("Described", bound=type)


def placement(
    *, paper: str, aka: tuple[str, ...] = (), held_to: HeldTo = "paper"
) -> Callable[[Described], Described]:
    """Mark a frozen dataclass as a placement of the catalogue.

    Its fields are the arguments that a config's `placement:` may give. It inherits from
    `TokenPlacement` or from `ImagePlacement`. The arguments are those of `PlacementFacts`.
    """

    def mark(cls: Described) -> Described:
        cls.facts = PlacementFacts(paper, aka, held_to)
        cls.catalogue_kind = "placement"
        return cls

    return mark


class Gains(NamedTuple):
    """Factors of the initial kernels of a transformer's block; biases start at zero.

    Attributes:
        value: of the layer that makes the values of the attention.
        output: of the last layer of the attention.
        up: of the first layer of the MLP.
        down: of the last layer of the MLP.
    """

    value: float = 1.0
    output: float = 1.0
    up: float = 1.0
    down: float = 1.0


class TokenBlock(Protocol):
    """One block of a transformer, as a placement sees it; tokens are `(N, T, C)`."""

    @property
    def number(self) -> int:
        """The number of the block, from 1."""
        ...

    @property
    def depth(self) -> int:
        """The number of blocks of the network."""
        ...

    def norm(self, x: Array) -> Array:
        """Normalise `x` in a slot of its own, over its last axis where the normaliser does."""
        ...

    def attention(
        self,
        x: Array,
        *,
        qkv: Map | None = None,
        heads: Map | None = None,
        inner: Map | None = None,
    ) -> Array:
        """Compute the attention of tokens.

        Args:
            x: the tokens `(N, T, C)`.
            qkv: applied to queries, keys and values, each `(N, T, heads, C / heads)`.
            heads: applied to the outputs of the heads, of the same shape.
            inner: applied to the joined outputs `(N, T, C)` before the last linear layer.
        """
        ...

    def mlp(self, x: Array, *, inner: Map | None = None) -> Array:
        """Compute the MLP of tokens; `inner` is applied before its last linear layer."""
        ...

    def by_head(self, x: Array) -> Array:
        """Multiply `(N, T, heads, d)` by one learnt number for each head, which starts at 1."""
        ...


class TokenPlacement:
    """A placement in a transformer; the methods that it does not define are those of pre-norm."""

    def start(self, x: Array, norm: Map) -> Array:
        """Place normalisers between the embedding and the first block."""
        return x

    def block(self, x: Array, at: TokenBlock) -> Array:
        """Compute one block."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a block is")

    def end(self, x: Array, norm: Map) -> Array:
        """Place normalisers between the last block and the head."""
        return norm(x)

    def gains(self, depth: int) -> Gains:
        """Return the factors of the initial kernels in a network of `depth` blocks."""
        return Gains()

    def require(self, depth: int, qk_norm: str) -> None:
        """Raise `FieldError` if the placement does not fit a network with these settings."""


class Slots(Protocol):
    """The slots of a residual network of convolutions; images are `(N, H, W, C)`."""

    def norm(self, x: Array) -> Array:
        """Normalise `x` in a slot of its own."""
        ...

    def act(self, x: Array) -> Array:
        """Apply the activation."""
        ...

    def norm_act(self, x: Array) -> Array:
        """Normalise, then apply the activation, which a fused normaliser contains."""
        ...

    def act_norm(self, x: Array) -> Array:
        """Apply the activation, then normalise; a fused normaliser raises `UserError`."""
        ...


class ImageBlock(Slots, Protocol):
    """One block of a residual network of convolutions, as a placement sees it."""

    @property
    def changes(self) -> bool:
        """Whether the block changes the shape, so that its shortcut must change it too."""
        ...

    def first(self, x: Array) -> Array:
        """Apply the first convolution of the branch, which changes the shape."""
        ...

    def second(self, x: Array) -> Array:
        """Apply the second convolution of the branch, with the dropout before it."""
        ...

    def shortcut(self, x: Array, *, normed: bool) -> Array:
        """Bring `x` to the shape of the branch's output, in the way of the network.

        `normed` says whether a normaliser follows where that is a convolution.
        """
        ...


class ImagePlacement:
    """A placement in a residual network; it defines the blocks and may define both ends."""

    def start(self, x: Array, at: Slots) -> Array:
        """Place what stands between the first convolution and the first block."""
        return x

    def block(self, x: Array, at: ImageBlock) -> Array:
        """Compute one block."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a block is")

    def end(self, x: Array, at: Slots) -> Array:
        """Place what stands between the last block and the mean over pixels."""
        return x
