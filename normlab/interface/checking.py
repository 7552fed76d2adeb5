"""Checks many configs, in several processes where that is faster.

What needs JAX is imported inside the functions, because only the workers need it then.
"""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab.configs.document import ConfigError
from normlab.engine.process import usable_cores
from normlab.engine.worker import Worker, WorkerDiedError
from normlab.errors import UserError

WORTH_WORKERS = 5
"""Files; with fewer, the start of further processes takes as long as the checks."""

MOST_WORKERS = 4
"""Each traces the networks that several files share anew."""


@dataclass(frozen=True)
class Checked:
    """What is said of one file.

    Attributes:
        text: one line, or several, with whatever control characters a file has.
        must_be_mended: whether the file has mistakes.
        asks: whether the file names code in folders that are not trusted.
    """

    text: str
    must_be_mended: bool = False
    asks: bool = False


def check_all(files: list[Path], trust: bool) -> Iterator[Checked]:
    """Check configs; yields what is said of each, in their order.

    Args:
        files: the configs.
        trust: whether the folders of code are trusted without a question.
    """
    workers = min(usable_cores() or 1, MOST_WORKERS)
    if len(files) < WORTH_WORKERS or workers < 2:
        yield from (_check_here(file, trust) for file in files)
        return
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for _ in range(workers):
        idle.put(Worker())

    def check_there(file: Path) -> Checked | None:
        worker = idle.get()
        try:
            return worker.submit(check_without_asking, file).result()
        except WorkerDiedError:
            return None
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(workers) as threads:
        try:
            for file, found in zip(files, threads.map(check_there, files), strict=True):
                # A worker has no terminal to ask on.
                yield _check_here(file, trust) if found is None or found.asks else found
        finally:
            for _ in range(workers):
                idle.get().shutdown()


def check_without_asking(file: Path) -> Checked:
    """Check a config without a question; code in folders that are not trusted is not run."""
    from normlab.configs.experiment import load_experiment

    return _said(file, lambda: load_experiment(file))


def _check_here(file: Path, trust: bool) -> Checked:
    from normlab.interface.trusting import load_trusted

    return _said(file, lambda: load_trusted(file, (), trust))


def _said(file: Path, load: Callable[[], Any]) -> Checked:
    """Load a config, and say what was found."""
    from normlab.configs.data_files import remarks

    try:
        experiment = load()
    except ConfigError as error:
        asks = bool(error.untrusted)
        if not all(problem.not_run for problem in error.problems):
            return Checked(str(error), must_be_mended=True, asks=asks)
        said = f"{file}: no mistake, as far as can be told without its code"
        return Checked("\n  ".join([said, *str(error).splitlines()]), asks=asks)
    except UserError as error:
        return Checked(str(error), must_be_mended=True)
    parts = [count(len(experiment.runs), "run")]
    if experiment.tuning is not None:
        parts.append(count(len(experiment.tuning.trials), "trial"))
    if experiment.claims:
        parts.append(count(len(experiment.claims), "claim"))
    data = [f"  data: {remark}" for remark in remarks(run.sections for run in experiment.runs)]
    return Checked("\n".join([f"{file}: fine, {', '.join(parts)}", *data]))


def count(number: int, noun: str) -> str:
    """Write a number with its noun.

    >>> count(1, "run"), count(3, "run")
    ('1 run', '3 runs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
