"""The contract that every normaliser keeps.

Conventions, stated once:

* Arrays are channels-last: `(N, C)`, `(N, T, C)`, `(N, H, W, C)`.
* `momentum` is the weight of the OLD running value (flax's and TensorFlow's sense; torch's
  `momentum` is the weight of the new one, so torch's 0.1 is 0.9 here).
* Variances are biased (divided by the count) unless a field says otherwise.
* `eps` is added to the variance, inside the square root.
* Statistics are float32 or wider, whatever the input; the output has the input's dtype.
* A mask is True where an element counts. It has as many axes as the input and is broadcast to
  it. Masked elements never touch a statistic, whatever they hold, and come out as zero. It is of
  booleans. Whole numbers are taken where they can be seen to be 0 or 1, which is outside of
  `jax.jit`; there, and for anything else, `MaskError` says what to write. Floating point is always
  refused: a mask that is added (0 and -inf) would be read the wrong way round.
* Input is of floating point, and one without elements (no examples, or no positions) comes out as
  it is and moves no state. Batch, layer, group, instance and RMS normalisation take complex numbers
  too: their variance is the mean squared absolute distance from the mean.
* A state is moved by what is counted and finite. A channel of which a batch counts fewer than two
  values, or has a statistic that is not finite, leaves all of its state as it was, the number of
  its steps included. A number of steps that a whole layer has counts those that moved any channel.
  Where statistics are of several channels (whitening, the gates of mode normalisation) those stand
  still together; where they are of one example (online normalisation), that example is left out.
  How many channels were not finite is no state: the probe `activations` counts them.
* Sums of squares must fit in the dtype of the statistics. In float32 that is a root mean square
  below 1.8e19 (2^64) over the root of how many values share it. Beyond, every output that depends
  on the sum is NaN, as are its gradients, and the state stays as it was; nothing is divided to
  zero. `scale_norm` and what divides by no statistic of the input have no such limit, and
  `l1_batch_norm`, which takes no squares, has 3.4e38 over how many values share it. One case is
  not seen, as to look would read memory four times for once: bfloat16 by `layer_norm`,
  `positional_norm` and `rms_norm` on a CPU, which gives zeros there.
* Arrays may be spread over a mesh of devices, by any axis: under `jit` the numbers are those of
  one device. Within `shard_map` an entry sees one shard; `axis_name` joins statistics of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import jax

from normlab.sharding import on_any_mesh

Array = jax.Array
Params = dict[str, Array]
State = dict[str, Array]

UNITS = ("channel", "example", "position")
INVARIANCES = frozenset(f"{unit} {change}" for unit in UNITS for change in ("scale", "shift"))
KERNEL_INVARIANCES = frozenset(
    f"{p} {change}" for p in ("unit", "kernel") for change in ("scale", "shift")
)


EpsRole = Literal["in the root", "added", "a lower limit"]

HeldTo = Literal["code", "library", "paper", "reported"]
"""What the equations of an entry are held to."""

HELD_TO: dict[HeldTo, str] = {
    "code": "numbers of the authors' code",
    "library": "numbers of another library's layer",
    "paper": "the paper",
    "reported": "others' accounts of the paper",
}
"""The same in words."""


@dataclass(frozen=True)
class Facts:
    """States what is known of a normaliser without running it; the contract tests check it.

    The library asks these facts and never the class, so a normaliser in a file of your own is
    folded, recalibrated, adapted and explained as ours are.

    Attributes:
        paper: where it comes from, as `arXiv:...` or author and year.
        uses_batch: in training, an example's output depends on the other examples.
        fuses_activation: it contains the non-linearity, so a model must not add its own.
        invariant_to: changes of the input that leave the output alone (as eps goes to 0): a
            positive factor ("scale") or an offset ("shift") of each "channel" over the whole
            batch, of each "example", or of each "position" (one pixel's vector of channels).
        backward_state: the leaves of the state that the backward pass moves. The gradient with
            respect to such a leaf is its next value.
        affine_in_evaluation: in evaluation each channel is multiplied by a factor and moved by an
            offset, so `fold` can put both into the layer before it.
        keeps_moments: the state holds the mean and the variance of each channel of the input, so
            `recalibrate` and `adapt` can replace them. `OptionalMethods` says how they are read.
        eps_is: how the field `eps` keeps from a division by zero. It is added to the variance "in
            the root", "added" to the divisor outside of any root, or "a lower limit" of it.
        identity: the output is the input. A model without a place for a normaliser takes only such.
        group: its place in `normlab list norms`, such as "batch"; empty for one of your own.
        after: the names of the entries that it came from, for `normlab family`.
        aka: what the field also calls it.
        held_to: what the equations are held to (`HeldTo`).
    """

    paper: str
    uses_batch: bool = False
    fuses_activation: bool = False
    invariant_to: frozenset[str] = frozenset()
    backward_state: frozenset[str] = frozenset()
    affine_in_evaluation: bool = False
    keeps_moments: bool = False
    eps_is: EpsRole = "in the root"
    identity: bool = False
    group: str = ""
    after: tuple[str, ...] = ()
    aka: tuple[str, ...] = ()
    held_to: HeldTo = "paper"


class Normaliser(Protocol):
    """Describes what a model holds in its normaliser slot: a frozen, hashable dataclass.

    `OptionalMethods` lists what it may have beside these two methods.
    """

    facts: ClassVar[Facts]

    def init(self, features: int) -> tuple[Params, State]:
        """Return the parameters and the state for an input of `features` channels.

        Neither depends on data, so no batch that a model happens to be initialised with can
        leak into an evaluation.
        """
        ...

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        """Return the normalised input, and the state that the next step needs.

        Args:
            params: as `init` makes them.
            state: as `init` makes them, or as the last `apply` returned it.
            x: `(N, ..., C)`, any floating dtype.
            train: whether statistics come from `x` (and the state moves) or from the state.
            mask: booleans, broadcast to `x`; see the module's conventions.
        """
        ...


class OptionalMethods(Protocol):
    """The methods that a normaliser may have beside `init` and `apply`.

    Without one of them, the default that it states holds. A normaliser whose state is the running
    `mean` and `variance` of each channel needs none but `frozen`:

    >>> @normaliser(paper="none", uses_batch=True, affine_in_evaluation=True, keeps_moments=True)
    ... @dataclass(frozen=True)
    ... class MyNorm:
    ...     def init(self, features): ...
    ...     def apply(self, params, state, x, *, train, mask=None): ...
    >>> MyNorm.facts.keeps_moments, MyNorm.facts.eps_is
    (True, 'in the root')
    """

    def pool(self, states: State) -> State:
        """Return the state after one step whose microbatches ended in `states`; see `pool_states`.

        Default: the mean over the microbatches.
        """
        ...

    def frozen(self) -> Normaliser:
        """Return the normaliser whose training is the evaluation of this one, with the same
        variables.

        Default: there is none, and `freeze` refuses.
        """
        ...

    def is_affine(self, state: State) -> bool:
        """Return whether evaluation with this state is a factor and an offset of each channel.

        Default: what `Facts.affine_in_evaluation` says of every state.
        """
        ...

    def without_mean(self) -> Normaliser:
        """Return the normaliser that gives the same, with the same variables, for an input whose
        channels have mean zero at each position.

        Default: there is none, and `fold(..., to="rms")` leaves it.
        """
        ...

    def read_moments(self, state: State) -> tuple[Array, Array]:
        """Return the mean and the variance, `(C,)` each, that a state holds.

        Default: its leaves `mean` and `variance`. It is asked where `Facts.keeps_moments` is true,
        as are the two methods below.
        """
        ...

    def write_moments(self, state: State, mean: Array, variance: Array) -> State:
        """Return the state with this mean and this variance, `(C,)` each; other leaves stay.

        Default: the leaves `mean` and `variance` take them.
        """
        ...

    def share_moments(self, moments: Any) -> Any:
        """Return the `Moments` of the channels that share a statistic, at each of them.

        `moments` are those of each channel by itself, `(C,)`. Default: no channels share any.
        """
        ...


def _run_on_any_mesh(cls: Any) -> None:
    """Let `cls.apply` run on any mesh: results are spread as the input (or kernel) and state."""

    def like(self: Any, params: Params, state: State, x: Array, *_: Any) -> tuple[Array, State]:
        return x, state

    if hasattr(cls, "apply"):
        cls.apply = on_any_mesh(cls.apply, like)


def _take_zero_centred(cls: Any) -> None:
    """Let `cls` keep its scale less one where its field `zero_centred` is true.

    The parent's methods, which `cls` may call in its own, see a description whose field is false.
    """
    init, apply = cls.init, cls.apply

    @wraps(init)
    def kept(self: Any, features: int) -> tuple[Params, State]:
        if not self.zero_centred:
            return init(self, features)
        params, state = init(replace(self, zero_centred=False), features)
        return moved_scale(params, -1.0), state

    @wraps(apply)
    def used(
        self: Any, params: Params, state: State, x: Array, **others: Any
    ) -> tuple[Array, State]:
        if not self.zero_centred:
            return apply(self, params, state, x, **others)
        plain = replace(self, zero_centred=False)
        return apply(plain, moved_scale(params, 1.0), state, x, **others)

    cls.init, cls.apply = kept, used


def moved_scale(params: Params, by: float) -> Params:
    """Add a number to every leaf that is a scale by its name.

    >>> moved_scale({"bias": jax.numpy.ones(1), "scale": jax.numpy.ones(1)}, -1.0)["scale"].item()
    0.0
    """
    return {name: leaf + by if name.endswith("scale") else leaf for name, leaf in params.items()}


Described = TypeVar("Described", bound=type)


def normaliser(
    *,
    paper: str,
    uses_batch: bool = False,
    fuses_activation: bool = False,
    invariant_to: tuple[str, ...] = (),
    backward_state: tuple[str, ...] = (),
    affine_in_evaluation: bool = False,
    keeps_moments: bool = False,
    eps_is: EpsRole = "in the root",
    identity: bool = False,
    group: str = "",
    after: tuple[str, ...] = (),
    aka: tuple[str, ...] = (),
    held_to: HeldTo = "paper",
) -> Callable[[Described], Described]:
    """Mark a frozen dataclass as an entry of the catalogue and attach its `Facts`.

    >>> from dataclasses import dataclass
    >>> @normaliser(paper="none", uses_batch=False)
    ... @dataclass(frozen=True)
    ... class Nothing:
    ...     def init(self, features): return {}, {}
    ...     def apply(self, params, state, x, *, train, mask=None): return x, state
    >>> Nothing.facts.paper
    'none'
    """
    unknown = set(invariant_to) - INVARIANCES
    if unknown:
        raise ValueError(f"unknown invariances {sorted(unknown)}; known: {sorted(INVARIANCES)}")
    facts = Facts(
        paper,
        uses_batch=uses_batch,
        fuses_activation=fuses_activation,
        invariant_to=frozenset(invariant_to),
        backward_state=frozenset(backward_state),
        affine_in_evaluation=affine_in_evaluation,
        keeps_moments=keeps_moments,
        eps_is=eps_is,
        identity=identity,
        group=group,
        after=after,
        aka=aka,
        held_to=held_to,
    )

    def mark(cls: Described) -> Described:
        cls.facts = facts
        cls.catalogue_kind = "normaliser"
        if hasattr(cls, "zero_centred"):
            _take_zero_centred(cls)
        _run_on_any_mesh(cls)
        return cls

    return mark


class KernelTransform(Protocol):
    """What a model holds in its kernel slot: a frozen, hashable dataclass.

    A kernel is `(..., in, out)`: HWIO for a convolution, `(in, out)` for a dense layer. What makes
    one output is a unit: the slice of all axes but the last at one place of it. Units are
    transformed each by itself unless the entry says otherwise.
    """

    facts: ClassVar["KernelFacts"]

    def init(self, key: Array, kernel: Array) -> tuple[Params, State]:
        """Return the parameters and the state for a kernel as it is initialised, float32 or wider.

        Which there are, and their shapes, may depend on the fields and on the kernel's shape.
        """
        ...

    def apply(
        self, params: Params, state: State, kernel: Array, *, train: bool
    ) -> tuple[Array, State]:
        """Return the kernel that the layer uses, in the kernel's shape and dtype, and the next
        state.

        A unit that is not finite comes out as NaN, and so does one whose squares do not fit in the
        dtype where they are taken as they are; neither moves a state.

        It sees no data: layers that hold the same kernel and state use the same one. With `train`
        False the state is used as it is, and returned so.
        """
        ...


@dataclass(frozen=True)
class KernelFacts:
    """States what is known of a kernel transform without running it.

    Attributes:
        paper: where it comes from.
        invariant_to: changes of the kernel that leave the result alone (as eps goes to 0): a
            positive factor ("scale") or an offset ("shift") of each "unit" of its own, or one for
            the whole "kernel" (which need not be said where the former is).
        held_to: what the equations are held to (`HeldTo`).
    """

    paper: str
    invariant_to: frozenset[str] = frozenset()
    held_to: HeldTo = "paper"


def kernel_transform(
    *, paper: str, invariant_to: tuple[str, ...] = (), held_to: HeldTo = "paper"
) -> Callable[[Described], Described]:
    """Mark a frozen dataclass as a kernel transform of the catalogue and attach its facts."""
    unknown = set(invariant_to) - KERNEL_INVARIANCES
    if unknown:
        known = sorted(KERNEL_INVARIANCES)
        raise ValueError(f"unknown invariances {sorted(unknown)}; known: {known}")

    def mark(cls: Described) -> Described:
        cls.facts = KernelFacts(paper, frozenset(invariant_to), held_to)
        cls.catalogue_kind = "kernel_transform"
        _run_on_any_mesh(cls)
        return cls

    return mark


def pool_states(normaliser: Normaliser, states: State) -> State:
    """Return the state after one step whose microbatches each ended in one of `states`.

    Every leaf of `states` has a leading axis over microbatches that all started from the same
    state. A normaliser whose state is not linear in its batch statistics has a method
    `pool(states)`; for all others the mean is exact. Each microbatch has its share of the step, so
    one that left a channel alone makes the step of that channel shorter.
    """
    pool = getattr(normaliser, "pool", None)
    if pool is not None:
        return pool(states)
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), states)
