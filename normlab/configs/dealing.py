"""Makes what deals the examples of the data to clients (`data.shards`), and deals them."""

from typing import Any

from normlab.catalogue import SHARDINGS
from normlab.configs.calls import Call
from normlab.data.dataset import Dataset, Outline
from normlab.data.shards import Sharding, dealt, dealt_sizes


def sharding(sections: dict[str, Any]) -> Sharding | None:
    """Return how the examples are dealt to clients, if they are."""
    if sections["data"].get("shards") is None:
        return None
    call = Call.of(sections["data"]["shards"])
    return SHARDINGS.load(call.name)(**call.arguments)


def with_clients(sections: dict[str, Any], data: Dataset) -> Dataset:
    """Return the data with its examples in the order of the clients, if there are any."""
    shards = sharding(sections)
    return data if shards is None else dealt(data, shards)


def sizes_with_clients(sections: dict[str, Any], outline: Outline) -> Outline:
    """Return the sizes of what `with_clients` returns."""
    shards = sharding(sections)
    return outline if shards is None else dealt_sizes(outline, shards)
