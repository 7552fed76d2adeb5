"""Which settings of a resolved config tell one run from another, and its hash.

A setting that comes later than others must not change the hash of configs that do not use it.
"""

import hashlib
import json
from typing import Any

from normlab.configs.document import Path

ABSENT_IF: dict[Path, Any] = {
    ("kernel",): None,
    ("probes",): None,
    ("data", "balance"): False,
    ("model", "dropout"): 0.0,
    ("model", "dropout_at"): "head",
    ("train", "adaptive_clip"): None,
    ("train", "metrics"): None,
    ("train", "scalar_rate"): None,
}
"""What a resolved config does not have unless it says something else than this: these came later
than others, and a config without them is to keep the hash, and so the runs, that it had before."""

NOT_HASHED_IF: dict[Path, Any] = {("data", "level"): "raw"}
"""What a resolved config says and its hash leaves out: before these settings came there was only
this, though now another is the default. So a run that was made then is that of a config which asks
for it."""


PLACE, CONTENTS = ("data", "path"), ("data", "contents")
"""Where data lie, and what they are. If a config says what they are, the place is not hashed, so
that data may be moved."""


def short_hash(sections: dict[str, Any], own_code: dict[str, str]) -> str:
    """Ten hex digits of all sections but what is `NOT_HASHED_IF`, and of the person's own code."""
    hashed = without(sections, NOT_HASHED_IF)
    data = hashed.get("data") or {}
    if data.get(CONTENTS[1]) is not None:
        hashed["data"] = {key: value for key, value in data.items() if key != PLACE[1]}
    if own_code:  # without any, the hash is what it always was
        hashed["own_code"] = own_code
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:10]


def without(value: dict[str, Any], absent: dict[Path, Any], path: Path = ()) -> dict[str, Any]:
    """Sections without the settings that say what a table has for them."""
    own = ":" in str(value.get("name", ""))  # a person's fields were there before
    return {
        key: without(inner, absent, (*path, key)) if isinstance(inner, dict) else inner
        for key, inner in value.items()
        if own or (*path, key) not in absent or inner != absent[(*path, key)]
    }
