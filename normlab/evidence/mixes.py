"""Finds runs that were made differently though their configs do not ask for it."""

from collections.abc import Callable
from typing import Any

from normlab.store.flags import recorded
from normlab.store.record import Record
from normlab.store.seeds import is_split, seed_text

Proof = dict[str, Any]
Values = tuple[tuple[str, str], ...]

MOST_NAMES = 6
"""A sentence names at most this many arms."""

NO_REPETITIONS = "Seeds that differ in this are a mix, and no repetitions of each other."


def machine(proof: Proof) -> str:
    """Name the processor, system and cores."""
    processor = f"{proof['processor']}, " if proof.get("processor") else ""
    return f"{processor}{proof['platform']}, {proof.get('cores', '?')} of {proof['cpus']} cores"


def state_of_code(git: dict[str, str]) -> str:
    """Name the commit, and the hash of what differs from it."""
    return git["commit"][:10] + (f" with changes {git['dirty']}" if "dirty" in git else "")


def copy_of_data(data: dict[str, Any]) -> str:
    """Name the data, the copy of them and their sizes."""
    source = f"{data['source']}; " if data.get("source") else ""
    return (
        f"{data['name']} ({source}{data['train_examples']} training and {data['test_examples']} "
        f"test examples, fingerprint {data['fingerprint']})"
    )


KINDS: dict[str, tuple[Callable[[Proof], dict[str, str]], str]] = {
    "hardware": (lambda proof: {"": ", ".join(proof["devices"])}, ""),
    "machines": (lambda proof: {"": machine(proof)}, ""),
    "versions": (lambda proof: {k: v for k, v in proof["versions"].items() if v}, ""),
    "states of the code": (
        lambda proof: {"": state_of_code(proof["git"])} if proof.get("git") else {},
        "",
    ),
    "own code": (lambda proof: proof.get("own_code", {}), NO_REPETITIONS),
    "flags": (recorded, NO_REPETITIONS),
    "data": (lambda proof: {"": copy_of_data(proof["data"])}, ""),
}
"""Each kind of difference has readers of values from a record of provenance, by name, and the
meaning of a difference. A name that a record lacks is not compared.
"""


def mixes(records: list[Record]) -> list[str]:
    """List for each kind of difference the runs of each value."""
    return [text for kind in KINDS if (text := _mix(kind, records))]


def _mix(kind: str, records: list[Record]) -> str:
    told, consequence = KINDS[kind]
    facts = [(record, told(proof)) for record in records for proof in record.provenance]
    values: dict[str, set[str]] = {}
    for _, own in facts:
        for name, value in own.items():
            values.setdefault(name, set()).add(value)
    mixed = [name for name in values if len(values[name]) > 1]
    groups: dict[Values, list[Record]] = {}
    for record, own in facts:
        state = tuple((name, own[name]) for name in mixed if name in own)
        if state and not any(record is known for known in groups.setdefault(state, [])):
            groups[state].append(record)
    each = (f"{_who(own, records)} with {_what(state)}" for state, own in groups.items())
    text = f"The runs were made with mixed {kind}: {'; '.join(each)}."
    return f"{text} {consequence}".rstrip() if mixed else ""


def _what(state: Values) -> str:
    return ", ".join(f"{name} {value}".strip() for name, value in state)


def _who(chosen: list[Record], records: list[Record]) -> str:
    """Name some of the runs: by seed if they are the same seeds of all arms, else by arm."""
    some, every = _seeds(chosen), _seeds(records)
    first = next(iter(some.values()))
    if some.keys() == every.keys() and all(seeds == first for seeds in some.values()):
        return seed_words(first)
    names = [
        _arm(arm) if every[arm] == own else f"{_arm(arm)} ({seed_words(own)})"
        for arm, own in some.items()
    ]
    more = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return ", ".join(names[:MOST_NAMES] + more)


def _arm(name: str) -> str:
    return f"'{name}'" if "," in name else name


def _seeds(records: list[Record]) -> dict[str, list[int]]:
    found: dict[str, set[int]] = {}
    for record in records:
        found.setdefault(record.arm, set()).add(record.seed)
    return {arm: sorted(seeds) for arm, seeds in found.items()}


def seed_words(seeds: list[int]) -> str:
    """Write seeds as text; consecutive ones become a range.

    >>> seed_words([0, 1, 2, 5]), seed_words([3])
    ('seeds 0 to 2, 5', 'seed 3')
    """
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and spans[-1][-1] == seed - 1 and not is_split(seed):
            spans[-1].append(seed)
        else:
            spans.append([seed])
    words = [seed_text(s[0]) if len(s) == 1 else f"{s[0]} to {s[-1]}" for s in spans]
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(words)}"
