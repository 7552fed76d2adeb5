"""`normlab.fit`: training with a bar in a notebook, and a result that shows itself."""

import functools
from dataclasses import dataclass, fields
from typing import Any

from matplotlib.figure import Figure

from normlab.errors import UserError, did_you_mean
from normlab.interface.bars import Bar, in_notebook
from normlab.reports.figures.history import draw
from normlab.training import fit as training
from normlab.training.events import Event, Progress, Row


@dataclass(frozen=True, repr=False)
class ShownFitted(training.Fitted):
    """A `Fitted` with its views."""

    def plot(self, metric: str = "accuracy") -> Figure:
        """Draw a learning curve of each split over the epochs.

        Args:
            metric: "accuracy", "loss", or a column of `history` such as "test_accuracy".
        """
        columns = dict.fromkeys(key for row in self.history for key in row)
        chosen = [name for name in columns if name == metric or name.endswith(f"_{metric}")]
        if not chosen:
            raise UserError(f"the history has no '{metric}'; {did_you_mean(metric, columns)}")
        return draw(self.history, chosen)


@functools.wraps(training.fit)
def fit(*args: Any, progress: bool | None = None, **options: Any) -> ShownFitted:
    """Train as `normlab.training.fit.fit`; see there for the arguments.

    Args:
        *args: as there.
        progress: whether to show a bar; None for in a notebook only.
        **options: as there.
    """
    emit = options.pop("emit", None)
    if not (in_notebook() if progress is None else progress):
        more = {} if emit is None else {"emit": emit}
        return _shown(training.fit(*args, **more, **options))
    with Bar() as bar:
        telling = _Telling(bar)

        def both(event: Event) -> None:
            telling(event)
            if emit is not None:
                emit(event)

        return _shown(training.fit(*args, emit=both, **options))


def _shown(fitted: training.Fitted) -> ShownFitted:
    return ShownFitted(**{one.name: getattr(fitted, one.name) for one in fields(fitted)})


class _Telling:
    """Turns events into the text of a bar: the step, the loss, and the last test accuracy."""

    def __init__(self, bar: Bar):
        self._bar, self._last = bar, ""
        bar("compiling", 0.0)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Row) and "test_accuracy" in event.metrics:
            self._last = f", test accuracy {event.metrics['test_accuracy']:.3f}"
        elif isinstance(event, Progress):
            text = f"step {event.step} of {event.steps}, loss {event.loss:.3f}{self._last}"
            self._bar(text, event.step / event.steps)
