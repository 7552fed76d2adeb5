"""The shapes of the files in a run's folder and in an experiment's.

They name the keys that are read; files of other versions of normlab may have more.
"""

import re
from typing import Any

from normlab.store.shapes import (
    AMOUNT,
    ANY_TEXT,
    ANYTHING,
    COUNT,
    FINITE,
    NUMBER,
    SCALAR,
    SHARE,
    TEXT,
    TRUTH,
    WHOLE,
    Single,
    one_of,
)

STATES = ("new", "running", "interrupted", "failed", "diverged", "done")

PID = Single("a process's number", lambda value: COUNT.fits(value) and value < 2**31)
DIGEST = Single(
    "hexadecimal digits", lambda value: TEXT.fits(value) and bool(re.fullmatch("[0-9a-f]+", value))
)

STATUS = {
    "state": one_of(*STATES),
    "pid?": PID,
    "host?": TEXT,
    "arm?": TEXT,
    "seed?": WHOLE,
    "step?": COUNT,
    "steps?": COUNT,
    "parameters?": COUNT,
    "peak_bytes?": (COUNT, None),
    "seconds_per_step?": AMOUNT,
    "compile_seconds?": AMOUNT,
    "train_seconds?": AMOUNT,
    "evaluate_seconds?": AMOUNT,
    "probe_seconds?": AMOUNT,
    "policy_seconds?": AMOUNT,
    "error?": ANY_TEXT,
    "diverged?": {"step": COUNT, "layer": TEXT, "norm": (NUMBER, None)},
    "digests?": {...: DIGEST},
}
RESULT = {
    "done": {"step": COUNT, "steps": COUNT, "train_seconds": AMOUNT},
    "diverged": {
        "step": COUNT,
        "steps": COUNT,
        "train_seconds": AMOUNT,
        "diverged": STATUS["diverged?"],
    },
}
"""The status of a run with a result always has these keys."""

METRICS_ROW = {
    "step": COUNT,
    "train_accuracy?": SHARE,
    "test_accuracy?": SHARE,
    "val_accuracy?": SHARE,
    "train_seconds?": AMOUNT,
    ...: NUMBER,
}


def _are_values(value: Any) -> bool:
    """Return whether a value is a number, a list, or lists of equal length; null is not finite."""
    if not isinstance(value, list):
        return value is None or NUMBER.fits(value)
    if any(isinstance(one, list) for one in value):
        lengths = {len(one) if isinstance(one, list) else -1 for one in value}
        return len(lengths) == 1 and all(_are_values(one) for one in value)
    return all(one is None or NUMBER.fits(one) for one in value)


PROBES_ROW = (
    {
        "step": COUNT,
        "probe": TEXT,
        "quantity": TEXT,
        "layers": ([TEXT], None),
        "values": Single("numbers", _are_values),
    },
    {"step": COUNT, "probe": TEXT, "error": TEXT},
)


def fits_layers(row: dict[str, Any]) -> bool:
    """Return whether a row of probes that has layers has a value for each."""
    if not row.get("layers"):
        return True
    return isinstance(row["values"], list) and len(row["values"]) == len(row["layers"])


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str | int) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | float) or WHOLE.fits(value)


_PLAIN = Single("text, numbers, lists and mappings", _is_plain)

RESOLVED = {
    "train?": {"seed?": (WHOLE, {...: WHOLE}), "batch_size?": COUNT, "epochs?": COUNT},
    ...: _PLAIN,
}
"""A resolved config: sections."""

_TEXTS = {...: (TEXT, None)}

_POSITIVE = Single("a positive whole number", lambda value: COUNT.fits(value) and value > 0)

PROVENANCE = [
    {
        "started?": TEXT,
        "host?": TEXT,
        "command?": [TEXT],
        "versions?": _TEXTS,
        "platform?": TEXT,
        "processor?": TEXT,
        "cpus?": (COUNT, None),
        "cores?": (COUNT, None),
        "devices?": [TEXT],
        "environment?": _TEXTS,
        "set_by_normlab?": _TEXTS,
        "made_by?": _TEXTS,
        "claims?": [TEXT],
        "at_once?": _POSITIVE,
        "git?": ({"commit": TEXT, "dirty?": TEXT}, None),
        "data": {
            "name": TEXT,
            "source?": (TEXT, None),
            "fingerprint?": TEXT,
            "classes?": _POSITIVE,
            "train_examples?": COUNT,
            "test_examples?": COUNT,
        },
    }
]
"""The keys that can be shown; the very first versions of normlab wrote fewer."""

PROOF = {
    "versions": ANYTHING,
    "platform": ANYTHING,
    "cpus": ANYTHING,
    "devices": ANYTHING,
    "environment": ANYTHING,
    "data": dict.fromkeys(("fingerprint", "classes", "train_examples", "test_examples"), ANYTHING),
}
"""Every record of provenance must have these keys before runs are compared."""

_SELECTOR = (TEXT, {...: SCALAR})

CLAIM = {
    "says": TEXT,
    "measure": TEXT,
    "left": _SELECTOR,
    "right": (TEXT, {...: SCALAR}, None),
    "expect": TEXT,
    "floor?": (TEXT, None),
    "paired?": (TRUTH, None),
    "source?": (TEXT, None),
    "generalise?": ([TEXT], None),
}

CLAIMS = [CLAIM]

_NAME = Single(
    "a folder's name",
    lambda value: TEXT.fits(value) and not set(value) & set("/\\\0") and value.strip(".") != "",
)

PLACE = {"run": _NAME, "arm": TEXT, "seed": WHOLE, "axes": {...: SCALAR}}
"""A run as its experiment lists it."""

TUNING = {
    "grid": {...: [_PLAIN]},
    "seeds": [WHOLE],
    "measure": TEXT,
    "anew?": TRUTH,
    "chosen": {
        ...: {
            "values": {...: _PLAIN},
            "score": (FINITE, None),
            "trials": COUNT,
            "steps": COUNT,
            "at_edge": TRUTH,
            "by_seed?": {...: {...: _PLAIN}},
        }
    },
}

ABOUT = {
    "name": TEXT,
    "question?": (TEXT, None),
    "source?": (TEXT, None),
    "target?": ({"test_accuracy": FINITE}, None),
    "baseline?": (TEXT, None),
    "config?": TEXT,
    "overrides?": [TEXT],
    "added?": [[TEXT]],
    "claims?": [CLAIM],
    "plan?": {"seeds": [WHOLE], "looks": [COUNT]},
    "ever_claimed?": [CLAIM],
    "tuning?": TUNING,
    "minutes?": AMOUNT,
    "shown?": {"measure": TEXT, "baseline": (TEXT, None), "figure": (TEXT, None)},
}
EXPERIMENT = {**ABOUT, "runs": [PLACE], "trials?": [PLACE], "former?": [PLACE]}

JOURNAL_LINE = (
    {
        "at": TEXT,
        "event": one_of("registered"),
        "before": TEXT,
        "seeds": [WHOLE],
        "looks": [COUNT],
        "arms": [TEXT],
        "claims": {...: TEXT},
    },
    {"at": TEXT, "event": one_of("finished", "deleted"), "before": TEXT, "run": TEXT,
     "digest?": TEXT},
)  # fmt: skip
"""What an experiment's journal says: a plan, with its claims by their hashes, or a run's fate."""

PUBLISHED = {
    "about": ABOUT,
    "config": RESOLVED,
    "runs": [
        {
            **PLACE,
            "status": STATUS,
            "config": {...: _PLAIN},
            "metrics": {...: [(NUMBER, None)]},
            "probes": [PROBES_ROW],
            "made_with": [COUNT],
            "right?": TEXT,
        }
    ],
    "trials": [{**PLACE, "status": STATUS}],
}
PUBLISHED_PROVENANCE = {"made_with": PROVENANCE}
