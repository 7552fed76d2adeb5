"""Tells the measured cost of a normaliser.

`costs.json` is here so that an installed normlab has the measurements. The experiment in
`experiments/speed/catalogue.py` writes it, and a test holds it to the results committed there.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("costs.json")


def cost_of(name: str) -> str | None:
    """Return the measured cost of a normaliser as one line, with n, hardware and versions.

    Args:
        name: an entry of the catalogue.

    Returns:
        The line, or None if it was not measured.

    >>> cost_of("mode_norm")
    '3.3 times batch_norm, ...'
    >>> cost_of("batch_norm")
    'other normalisers are measured beside it, ...'
    """
    measured = _measurements()
    beside = {nearest for nearest, _ in measured["costs"].values()}
    if name in measured["costs"]:
        nearest, ratio = measured["costs"][name]
        text = f"{ratio:.1f} times {nearest}"
    elif name in beside:
        text = "other normalisers are measured beside it"
    else:
        return None
    shape, versions = tuple(measured["shape"]), measured["versions"]
    return (
        f"{text}, a call in training and its gradients on {shape} (median of n = "
        f"{measured['rounds']} alternating rounds; {measured['processor']}, {measured['cores']} "
        f"cores, {', '.join(measured['devices'])}; jax {versions['jax']}, Python "
        f"{versions['python']}, normlab {versions['normlab']}; {measured['measured'][:10]})"
    )


@cache
def _measurements() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))
