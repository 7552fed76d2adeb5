"""Applies probes to a run, and turns what they see into rows."""

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from normlab.catalogue import snake_case
from normlab.errors import UserError
from normlab.probes.contract import HeldOut, Moment, PerLayer, Probe, Readings, Subject
from normlab.training.compiled import Compiled
from normlab.training.events import Lookable
from normlab.training.host_data import on_every_device
from normlab.training.state import TrainState


class Prober:
    """Holds the probes of one program and the first of its training examples.

    A probe compiles what it needs when it first looks; keep one prober for all runs of a program.

    Args:
        compiled: the program on its data.
        probes: each by the name that its rows are to have.
        examples: how many of the training examples they look at.

    Raises:
        UserError: a probe cannot look into this model.
    """

    def __init__(self, compiled: Compiled, probes: Mapping[str, Probe], examples: int):
        self._images, self._labels = compiled.first_examples(examples)
        data = compiled.data
        images, labels = on_every_device(data, "test")
        self._held_out = HeldOut(images, labels, data.mean, data.std)
        program, self._probes = compiled.program, dict(probes)
        self._program = program
        self._subject = Subject(program.model, program.loss, program.optimizer)
        state = jax.eval_shape(lambda: program.init(0, self._images.shape[1:]))
        for name, probe in probes.items():
            try:
                jax.eval_shape(partial(probe.measure, self._subject), self._moment(state))
            except UserError as error:
                raise UserError(f"probe {name}: {error}") from error

    def look(self, state: TrainState) -> tuple[list[dict[str, Any]], float]:
        """Return the rows of all probes at this state, and the seconds that they took.

        Those of the first look have the compilation in them.

        A probe that fails here (for want of memory, say) leaves a row with its `error`: it is not
        worth the training that it looks at.
        """
        started, step, rows = time.perf_counter(), int(state.step), []
        for name, probe in self._probes.items():
            try:
                found = jax.device_get(probe.measure(self._subject, self._moment(state)))
            except jax.errors.JaxRuntimeError as error:
                rows.append({"step": step, "probe": name, "error": str(error).partition("\n")[0]})
                continue
            rows += as_rows(step, name, found)
        return rows, time.perf_counter() - started

    def _moment(self, state: TrainState) -> Moment:
        parts = (state.params, state.norm_state, self._program.optimizer_state(state))
        return Moment(*parts, self._images, self._labels, self._held_out)


class Watch:
    """Looks inside a network that `normlab.fit` trains, and keeps what it sees.

    Args:
        probes: as from `normlab.probes`.
        examples: how many of the training examples they look at: the first, without augmentation.

    Attributes:
        rows: what they saw, as `Run.probes` has it.
        seconds: how long that took, compilation included.

    >>> import optax, normlab
    >>> from normlab.data import Shapes
    >>> from normlab.models.plain import MLP
    >>> from normlab.norms import BatchNorm
    >>> data, model = Shapes(train_examples=64, size=8).load(), MLP(BatchNorm(), classes=10)
    >>> from normlab.probes import Gradients
    >>> watch = Watch([Gradients()], examples=32)
    >>> recipe = normlab.Recipe(epochs=1, batch_size=32)
    >>> fitted = normlab.fit(model, data, optax.sgd(0.1), recipe, look_at=[0, 2], emit=watch)
    >>> [row["step"] for row in watch.rows if row["quantity"] == "norm"]
    [0, 2]
    """

    def __init__(self, probes: Iterable[Probe], *, examples: int = 256):
        self._probes = {snake_case(type(probe).__name__): probe for probe in probes}
        self._examples = examples
        self._prober: Prober | None = None
        self._compiled: Compiled | None = None
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0

    def __call__(self, event: Any) -> None:
        """Look, if the event offers a state to look at."""
        if not isinstance(event, Lookable):
            return
        if self._prober is None or self._compiled is not event.compiled:
            self._prober = Prober(event.compiled, self._probes, self._examples)
            self._compiled = event.compiled
        rows, seconds = self._prober.look(event.state)
        self.rows += rows
        self.seconds += seconds

    def frame(self) -> Any:
        """Make a pandas DataFrame with a row for every number.

        Raises:
            UserError: pandas is not installed.
        """
        from normlab.store.frames import numbers, to_frame

        return to_frame([number for row in self.rows for number in numbers(row)])


def as_rows(step: int, probe: str, readings: Readings) -> list[dict[str, Any]]:
    """Make a row for each quantity, in JSON's own types; what is not finite is None.

    >>> as_rows(3, "p", {"q": np.float32(0.5), "r": PerLayer(np.array([1.0, np.nan]), ("a", "b"))})
    ... # doctest: +NORMALIZE_WHITESPACE
    [{'step': 3, 'probe': 'p', 'quantity': 'q', 'layers': None, 'values': 0.5},
     {'step': 3, 'probe': 'p', 'quantity': 'r', 'layers': ['a', 'b'], 'values': [1.0, None]}]
    """
    rows = []
    for quantity, found in readings.items():
        layers = list(found.layers) if isinstance(found, PerLayer) else None
        values = _plain(np.asarray(found.values if isinstance(found, PerLayer) else found).tolist())
        rows.append(
            {"step": step, "probe": probe, "quantity": quantity, "layers": layers, "values": values}
        )
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if np.isfinite(value) else None
