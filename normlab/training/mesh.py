"""Spreads a run over several devices: the `mesh:` section of a config.

Each batch is cut by its examples, one part a device, and XLA sums over the devices where a sum is
over the batch. The numbers of a run are therefore those of one device up to rounding: a mean, a
variance or a gradient is of the whole batch. Statistics of one device alone are asked for by name
(`train.statistics: local`). Parameters lie on every device, or are cut along an axis where they
take too much memory, as in FSDP (Zhao et al. 2023, arXiv:2304.11277).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from normlab.errors import UserError, require_field
from normlab.training.room import memory

Placement = Literal["replicated", "sharded"]

T = TypeVar("T")

AXIS = "data"
"""The name of the axis of a mesh along which a batch is cut."""

MOST_OF_MEMORY = 0.5
"""The share of a device's memory above which parameters, gradients and the optimiser's state are
cut. The other half is for activations and data."""


@dataclass(frozen=True)
class Mesh:
    """The devices that a run is spread over.

    Attributes:
        data: number of devices that share each batch by its examples. Where there are fewer, each
            takes several shares, and the numbers are the same.
        parameters: whether each device has all parameters (`replicated`) or a part of each
            (`sharded`); null for sharded where they would take more than half of the memory.
    """

    data: int = 1
    parameters: Placement | None = None

    def __post_init__(self) -> None:
        require_field(self.data >= 1, "data", self.data, "a positive whole number")
        known = self.parameters is None or self.parameters in get_args(Placement)
        allowed = f"{' or '.join(get_args(Placement))}, or null"
        require_field(known, "parameters", self.parameters, allowed)

    def check(self, examples: int) -> None:
        """Check that a microbatch of so many examples can be cut.

        Raises:
            FieldError: it cannot.
        """
        fits = [n for n in range(1, examples + 1) if examples % n == 0]
        allowed = f"a divisor of the {examples} examples of a batch or microbatch: {fits}"
        require_field(examples % self.data == 0, "data", self.data, allowed)

    @property
    def devices(self) -> int:
        """The number of devices that a run takes of those that there are.

        Raises:
            UserError: there are several processes, and not each would have a part.
        """
        processes = jax.process_count()
        shares = processes if self.data == 1 else self.data
        if shares % processes:
            raise UserError(
                f"mesh.data={self.data} cannot be dealt out to {processes} processes: give a "
                f"multiple of {processes}, such as --devices {processes}"
            )
        most = processes * min(shares // processes, _fewest_devices())
        return next(n for n in range(most, 0, -processes) if shares % n == 0)

    def cut(self, array: Array) -> Array:
        """Give each device its part of an array's first axis, within `jit`; the numbers stay."""
        spread = self.spread()
        if spread is None:
            return array
        return lax.with_sharding_constraint(array, spread.by_example)

    def spread(self) -> "Spread | None":
        """Return how arrays lie on these devices; None where there is one, which needs nothing."""
        return None if self.devices == 1 else _spread(self.devices)


def apart() -> AbstractContextManager[Any]:
    """Leave the mesh that a caller has set by `jax.set_mesh`, because a run has its own.

    >>> with jax.set_mesh(jax.make_mesh((1,), ("mine",))), apart():
    ...     jax.sharding.get_abstract_mesh().empty
    True
    """
    return jax.set_mesh(jax.sharding.Mesh(np.empty((), object), ()))


@cache
def _fewest_devices() -> int:
    """Count the devices of the process that has the fewest."""
    owners = [device.process_index for device in jax.devices()]
    return min(map(owners.count, {*owners}))


@cache
def _spread(count: int) -> "Spread":
    each = count // jax.process_count()
    taken: dict[int, list[Any]] = {}
    for device in jax.devices():
        taken.setdefault(device.process_index, []).append(device)
    devices = [device for process in sorted(taken) for device in taken[process][:each]]
    return Spread(jax.sharding.Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)))


@dataclass(frozen=True)
class Spread:
    """Says how the arrays of a run lie on several devices.

    Attributes:
        mesh: the devices, along one axis.
    """

    mesh: jax.sharding.Mesh

    @property
    def whole(self) -> NamedSharding:
        """The sharding of an array that every device has."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def by_example(self) -> NamedSharding:
        """The sharding of an array whose first axis is cut into one part a device."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def put(self, tree: T, shardings: Any = None) -> T:
        """Lay arrays out over the devices, each a copy; every process gives all their values.

        Args:
            tree: arrays of any kind.
            shardings: a sharding for each, in the same structure; whole on every device if None.
        """
        if shardings is None:
            shardings = jax.tree.map(lambda leaf: self.whole, tree)
        return jax.tree.map(self._put, tree, shardings)

    def _put(self, leaf: Any, sharding: NamedSharding) -> Array:
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    def of_parameters(self, tree: Any, placement: Placement) -> Any:
        """Choose how each parameter, or what an optimiser keeps of it, lies on the devices.

        Args:
            tree: arrays or their shapes.
            placement: `sharded` cuts the largest axis that the number of devices divides.
        """

        def sharding(leaf: Any) -> NamedSharding:
            axes = [axis for axis, n in enumerate(leaf.shape) if n and n % self.mesh.size == 0]
            if placement == "replicated" or not axes:
                return self.whole
            largest = max(axes, key=lambda axis: leaf.shape[axis])
            return NamedSharding(self.mesh, PartitionSpec(*(None,) * largest, AXIS))

        return jax.tree.map(sharding, tree)


def placement(mesh: Mesh, params: Any, opt_state: Any) -> Placement:
    """Return how parameters are laid out: as asked, or as their size and the memory want it.

    Args:
        mesh: what is asked.
        params: the parameters or their shapes.
        opt_state: the same of the optimiser's state.
    """
    if mesh.parameters is not None:
        return mesh.parameters
    has = memory()
    if has is None:
        return "replicated"
    # A gradient is as large as its parameter. The devices of a processor share its memory.
    size = 2 * _bytes(params) + _bytes(opt_state)
    copies = jax.local_device_count() if jax.local_devices()[0].platform == "cpu" else 1
    return "sharded" if size * copies > MOST_OF_MEMORY * has else "replicated"


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
