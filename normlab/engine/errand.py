"""Makes a run that a command elsewhere has ordered, in a process of its own on this machine.

An executor may call `run_errand` in any thread of any process that has normlab. The run is made in
a spawned process beside it, whose cores, GPUs and memory are set before JAX is imported, and which
ends with this one. It is kept for a while, because the next run may need the same programs.
"""

import os
import threading
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path

from normlab.engine.endings import bury
from normlab.engine.task import Order, task_of
from normlab.engine.worker import Share, Worker, WorkerDiedError, shares
from normlab.store.leases import holder_of

BETWEEN_LOOKS = 1.0
"""Seconds between two looks at whether the command is still there."""

KEPT = 60.0
"""Seconds for which a process without work is kept."""


def run_errand(order: Order) -> list[str]:
    """Make one run, and return how it ended and a word on that.

    Args:
        order: as `Task.order` writes it. `place` may say which part of the machine it has: `first`
            and `of`, for the first of the places that this process has among those of its machine.
    """
    if not _is_wanted(order):
        return ["new", ""]
    slot = _take_slot(order)
    try:
        future = slot.worker.submit(_attempt, order)
        while not wait([future], BETWEEN_LOOKS).done:
            if not _is_wanted(order):
                slot.worker.stop()
        answer = future.result()
        if answer[0] in ("interrupted", "new"):
            slot.worker.shutdown()  # it was asked to stop, and would not begin another run
        return answer
    except WorkerDiedError as error:
        slot.worker.shutdown()
        return list(bury(task_of(order), str(error)))
    finally:
        _give_back(slot)


def _is_wanted(order: Order) -> bool:
    """Return whether the command that gave an order is still there."""
    return order["command"] is None or holder_of(Path(order["command"])) is not None


def _attempt(order: Order) -> list[str]:
    """Make a run in the process that was spawned for it."""
    from normlab.engine.maker import attempt_in_worker

    return list(attempt_in_worker(order))


@dataclass
class _Slot:
    number: int
    worker: Worker
    key: str
    ends: threading.Timer | None = field(default=None)


_slots: list[_Slot] = []
_idle: list[_Slot] = []
_guard = threading.Lock()


def _take_slot(order: Order) -> _Slot:
    key = repr((order["folder"], order["code"], order.get("place")))
    with _guard:
        for slot in _idle:
            if slot.key == key:
                _idle.remove(slot)
                break
        else:
            taken = {slot.number for slot in _slots}
            number = next(i for i in range(len(taken) + 1) if i not in taken)
            folder = order["folder"] if Path(order["folder"]).is_dir() else None
            slot = _Slot(number, Worker(_share(order, number), folder), key)
            _slots.append(slot)
    if slot.ends is not None:
        slot.ends.cancel()
    return slot


def _share(order: Order, number: int) -> Share:
    """Return a place's part of the machine, unless something else has given this process a part."""
    place = order.get("place")
    if place is None:
        return Share()
    affinity = getattr(os, "sched_getaffinity", lambda pid: set())(0)
    dealt = shares(max(place["of"], place["first"] + number + 1))[place["first"] + number]
    if len(affinity) < (os.cpu_count() or 1):
        return Share(gpus=dealt.gpus, of_each=dealt.of_each)
    return dealt


def _give_back(slot: _Slot) -> None:
    slot.ends = threading.Timer(KEPT, _end, [slot])
    slot.ends.daemon = True
    with _guard:
        _idle.append(slot)
    slot.ends.start()


def _end(slot: _Slot) -> None:
    with _guard:
        if slot not in _idle:
            return
        _idle.remove(slot)
        _slots.remove(slot)
    slot.worker.shutdown()
