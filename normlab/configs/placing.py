"""Makes the placement of the normalisers, and asks which one a network has by itself."""

import inspect
import typing
from typing import Any

from normlab.catalogue import MODELS, PLACEMENTS
from normlab.configs.calls import Call, SectionError
from normlab.models.slots import is_ours


def placement(sections: dict[str, Any]) -> Any:
    """Make the placement of the normalisers; None is the network's own.

    Raises:
        SectionError: the network has no such slot, or the placement is for another kind of network.
    """
    if sections.get("placement") is None:
        return None
    call, name = Call.of(sections["placement"]), sections["model"]["name"]
    called = MODELS.load(name)
    own = is_ours(called) and inspect.signature(called).parameters.get("placement")
    if not own:
        message = f"model {name} has no slot for a placement; use null"
        raise SectionError("placement", None, message)
    made, kind = PLACEMENTS.load(call.name)(**call.arguments), placements_of(called)
    if not isinstance(made, kind):
        entries = PLACEMENTS.entries().items()
        allowed = ", ".join(n for n, entry in entries if issubclass(entry.load(), kind))
        message = f"model {name} has no placement '{call.name}'; it has {allowed}"
        raise SectionError("placement", "name", message)
    return made


def placements_of(called: Any) -> type:
    """Return the class that the placements of a model of this library inherit from."""
    return typing.get_type_hints(called)["placement"]


def is_own_placement(sections: dict[str, Any]) -> bool:
    """Return whether the placement is the one that the network has without that section."""
    made = placement(sections)
    called = MODELS.load(sections["model"]["name"])
    return made is not None and inspect.signature(called).parameters["placement"].default == made
