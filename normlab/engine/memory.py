"""Estimates the memory that training takes, before a run begins, and what there is of it.

Parameters, optimiser state, gradients and data are known exactly from their shapes. What a training
step holds besides them, its activations above all, depends on the compiler. It is first estimated
from the step's operations as they are written; the compiler joins many of them and needs less. Only
if that estimate does not fit is the step compiled, and the compiler says what it needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from normlab.configs import build
from normlab.data.dataset import Dataset, Split
from normlab.training.compiler import compiler_options
from normlab.training.host_data import fits
from normlab.training.state import DeviceData, DeviceSplit


@dataclass(frozen=True)
class Need:
    """Holds the bytes that training takes.

    Attributes:
        parameters: the model's parameters.
        optimizer: the optimiser's state.
        gradients: a gradient for each parameter.
        data: the data on the device.
        activations: what else a step holds at its peak; with `is_exact` the compiler says so.
        is_exact: whether the compiler was asked.
    """

    parameters: int
    optimizer: int
    gradients: int
    data: int
    activations: int = 0
    is_exact: bool = False

    @property
    def least(self) -> int:
        """The bytes that no compiler can save; gradients may be used up one by one."""
        return self.parameters + self.optimizer + self.data

    @property
    def total(self) -> int:
        """Everything together. The compiler's number has the gradients in it."""
        return self.least + self.activations + (0 if self.is_exact else self.gradients)

    def __str__(self) -> str:
        parts = {
            "parameters": self.parameters,
            "optimiser state": self.optimizer,
            "data": self.data,
        }
        if not self.is_exact:
            parts["gradients"] = self.gradients
        step = "a step's activations and gradients" if self.is_exact else "activations"
        if self.activations:
            parts[step] = self.activations
        return ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items())


def in_bytes(size: int) -> str:
    """Write a number of bytes for people.

    >>> in_bytes(1_080_000_000_000), in_bytes(5_000_000)
    ('1,080.0 GB', '5.0 MB')
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def needed(sections: dict[str, Any], data: Dataset) -> Need:
    """Estimate what a run takes from the shapes of its arrays; nothing is computed.

    Args:
        sections: the run's resolved config.
        data: its data.
    """
    need, step, arguments = _traced(sections, data)
    closed = jax.make_jaxpr(step)(*arguments)
    return Need(*need, activations=_peak(closed.jaxpr))


def needed_exactly(sections: dict[str, Any], data: Dataset) -> Need:
    """Compile a run's step and ask the compiler. JAX's cache keeps the program for the run.

    Where the compiler does not say, the activations are 0.
    """
    need, step, arguments = _traced(sections, data)
    options: Any = compiler_options()
    compiled = jax.jit(step, donate_argnums=0).lower(*arguments).compile(compiler_options=options)
    found = getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0)
    return Need(*need, activations=found, is_exact=True)


def _traced(
    sections: dict[str, Any], data: Dataset
) -> tuple[tuple[int, int, int, int], Callable[..., Any], tuple[Any, ...]]:
    """Give the sizes of what a run keeps, its step, and the shapes of the step's arguments."""
    program = build.program(sections)
    shape = data.train.images.shape[1:]
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    state = jax.eval_shape(partial(program.init, image_shape=shape), seed)
    on_device = _shapes(data, program.recipe.batch_size)
    order = jax.ShapeDtypeStruct(on_device.train.labels.shape, jnp.int32)
    parameters = _bytes(state.params)
    sizes = parameters, _bytes(state.opt_state), parameters, _bytes(on_device)
    return sizes, program.step, (state, on_device, order, seed)


def _shapes(data: Dataset, batch_size: int) -> DeviceData:
    """Give the shapes of the data on the device: all of them, or a batch of a set too large."""
    parts = {"train": data.train, "test": data.test, "validation": data.validation}
    whole = fits(data)

    def shapes(name: str, split: Split | None) -> Any:
        if split is None or not (whole or name == "train"):
            return None
        count = len(split.labels) if whole else batch_size
        arrays: Any = [jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype) for a in split]
        return DeviceSplit(*arrays)

    channels: Any = jax.ShapeDtypeStruct(data.train.images.shape[-1:], jnp.float32)
    found = {name: shapes(name, split) for name, split in parts.items()}
    return DeviceData(**found, mean=channels, std=channels)


def _bytes(tree: Any) -> int:
    return sum(_size(leaf) for leaf in jax.tree.leaves(tree))


def _size(aval: Any) -> int:
    if not hasattr(aval, "dtype") or not hasattr(aval.dtype, "itemsize"):
        return 0
    return aval.size * aval.dtype.itemsize


def _peak(jaxpr: Any) -> int:
    """Find the most bytes that the results of operations take at once, inputs not counted.

    A result is kept until its last use. An operation that holds others needs their peak besides.
    """
    last: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        for variable in equation.invars:
            if not hasattr(variable, "val"):
                last[variable] = index
    for variable in jaxpr.outvars:
        if not hasattr(variable, "val"):
            last[variable] = len(jaxpr.eqns)
    ends: dict[int, list[Any]] = {}
    now = most = 0
    for index, equation in enumerate(jaxpr.eqns):
        inner = max((_peak(one) for one in _inner(equation.params)), default=0)
        for variable in equation.outvars:
            now += _size(variable.aval)
            ends.setdefault(last.get(variable, index), []).append(variable)
        most = max(most, now + inner)
        now -= sum(_size(variable.aval) for variable in ends.pop(index, []))
    return most


def _inner(params: dict[str, Any]) -> list[Any]:
    """List the programs within an operation, such as the body of a loop."""
    found = []
    for value in params.values():
        for one in value if isinstance(value, list | tuple) else [value]:
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                found.append(inner)
    return found
