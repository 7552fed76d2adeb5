"""The bare key `learning_rate`: the optimiser holds it, or an argument of the schedule does."""

import inspect
from typing import Any

from normlab.configs.document import Document, Problem
from normlab.configs.optax_names import SCHEDULES
from normlab.configs.sections import LENGTHS
from normlab.errors import UserError

RATE = ("learning_rate",)
"""Where an override or an axis leaves it until optimiser and schedule are final."""


def rate_place(document: Document) -> tuple[str, str] | None:
    """Where a bare `learning_rate` belongs, or None where the config does not tell.

    >>> rate_place(Document("", {"optimizer": {"name": "sgd"}}))
    ('optimizer', 'learning_rate')
    >>> rate_place(Document("", {"schedule": {"name": "constant_schedule"}}))
    ('schedule', 'value')
    """
    schedule = document.value.get("schedule")
    if schedule is None:
        return ("optimizer", "learning_rate")
    arguments = _arguments_of(schedule)
    argument = next((a for a in ("peak_value", "value", "init_value") if a in arguments), None)
    if argument is None or (argument == "init_value" and _rises(schedule)):
        return None
    return ("schedule", argument)


def settle_rate(document: Document) -> list[Problem]:
    """Put a bare `learning_rate` where it belongs, once optimiser and schedule are final.

    Returns:
        A problem if the config does not tell where that is.
    """
    if RATE[0] not in document.value:
        return []
    rate, key_mark, place = document.part(RATE), document.key_mark(RATE), rate_place(document)
    document.replace(RATE, Document(document.source, None))  # its marks go too
    del document.value[RATE[0]]
    if place is not None:
        if isinstance(document.value.get(place[0]), dict):
            document.replace(place, rate)
        return []  # otherwise there is no such section, which is told elsewhere
    schedule = document.value["schedule"]
    arguments = [name for name in _arguments_of(schedule) if name not in LENGTHS]
    if not arguments:
        return []  # it is no schedule, which is told elsewhere
    values = [name for name in arguments if name.endswith("value")] or arguments
    keys = " or ".join(f"'schedule.{name}'" for name in values)
    message = (
        f"it cannot be told which argument of schedule {schedule['name']} is the learning rate; "
        f"write {keys} instead of 'learning_rate'"
    )
    return [Problem(key_mark, message)]


def _arguments_of(schedule: Any) -> list[str]:
    try:
        return list(inspect.signature(SCHEDULES.load(schedule["name"])).parameters)
    except (UserError, TypeError, KeyError):
        return []


def _rises(schedule: dict[str, Any]) -> bool:
    """Whether it ends above its beginning: then the beginning is not what people call its rate."""
    first, last = schedule.get("init_value"), schedule.get("end_value")
    return isinstance(first, int | float) and isinstance(last, int | float) and first < last
