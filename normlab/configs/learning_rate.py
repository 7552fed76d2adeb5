"""Puts the bare key `learning_rate` into the optimiser, or into an argument of the schedule."""

import inspect
from typing import Any

from normlab.configs.document import Node, Problem
from normlab.configs.optax_names import SCHEDULES
from normlab.configs.sections import LENGTHS
from normlab.errors import UserError

RATE = ("learning_rate",)
"""The path at which an override or an axis leaves the rate until `settle_rate` moves it."""


def rate_place(config: Node) -> tuple[str, str] | None:
    """Return the path where a bare `learning_rate` belongs, or None if the config does not tell.

    >>> from normlab.configs.document import Mark
    >>> rate_place(Node.of({"optimizer": {"name": "sgd"}}, Mark("")))
    ('optimizer', 'learning_rate')
    >>> rate_place(Node.of({"schedule": {"name": "constant_schedule"}}, Mark("")))
    ('schedule', 'value')
    """
    if not config.has("schedule"):
        return ("optimizer", "learning_rate")
    schedule = config.at(("schedule",)).value
    arguments = _arguments_of(schedule)
    argument = next((a for a in ("peak_value", "value", "init_value") if a in arguments), None)
    if argument is None or (argument == "init_value" and _rises(schedule)):
        return None
    return ("schedule", argument)


def settle_rate(config: Node) -> tuple[Node, list[Problem]]:
    """Put a bare `learning_rate` where it belongs, once optimiser and schedule are final.

    Returns:
        The config, and a problem if the config does not tell the place.
    """
    rate = config.get(RATE[0])
    if rate is None:
        return config, []
    place, config = rate_place(config), config.without(*RATE)
    if place is not None:
        section = config.get(place[0])
        if section is not None and isinstance(section.content, dict):
            config = config.put(place, rate)
        return config, []  # if there is no such section, its own check complains
    schedule = config.at(("schedule",)).value
    arguments = [name for name in _arguments_of(schedule) if name not in LENGTHS]
    if not arguments:
        return config, []  # it is no schedule, and its own check complains
    values = [name for name in arguments if name.endswith("value")] or arguments
    keys = " or ".join(f"'schedule.{name}'" for name in values)
    message = (
        f"it cannot be told which argument of schedule {schedule['name']} is the learning rate; "
        f"write {keys} instead of 'learning_rate'"
    )
    return config, [Problem(rate.key_mark, message)]


def _arguments_of(schedule: Any) -> list[str]:
    try:
        return list(inspect.signature(SCHEDULES.load(schedule["name"])).parameters)
    except (UserError, TypeError, KeyError):
        return []


def _rises(schedule: dict[str, Any]) -> bool:
    """Return whether a schedule ends above its beginning, which is then not its rate."""
    first, last = schedule.get("init_value"), schedule.get("end_value")
    return isinstance(first, int | float) and isinstance(last, int | float) and first < last
