"""Finds before the first run what would stop one: missing data or packages, too little memory.

All faults are told at once, and nothing has been written then.
"""

from collections.abc import Callable, Iterable, Sequence

import jax

from normlab.configs import build
from normlab.configs.run_config import RunConfig
from normlab.data.dataset import Dataset
from normlab.engine.memory import Need, in_bytes, needed, needed_exactly
from normlab.errors import UserError
from normlab.training.privacy import lacks_library
from normlab.training.room import Room, room

SUSPICIOUS = 0.5
"""A run whose estimate is a larger share of the memory is compiled, to know better."""

MEND = "a smaller batch_size, train.accumulate, or a smaller model needs less"


class ImpossibleError(UserError):
    """Some runs cannot be made on this machine."""


def check(
    configs: Sequence[RunConfig],
    jobs: int,
    load: Callable[[RunConfig], Dataset],
    weigh: bool = True,
) -> list[str]:
    """Check that runs can be made on this machine.

    One arm of each network, batch size and data set is looked at: arms that differ in their
    normaliser need about the same.

    Args:
        configs: the runs that are not finished.
        jobs: how many of them are made at once.
        load: loads the data of a run. Those of the first run are loaded last, and may be kept.
        weigh: whether the memory of this machine counts.

    Returns:
        Warnings of what may go wrong and need not.

    Raises:
        ImpossibleError: some runs are impossible.
    """
    faults: dict[str, None] = {}
    warnings = []
    for alike in _by(configs, "mesh") if weigh else ():
        try:
            warnings += _few_devices(alike[0])
        except UserError as error:
            faults[str(error)] = None
    lacking = lacks_library()
    if lacking and any(config.sections["train"].get("private") for config in configs):
        faults[lacking] = None
    if faults:
        raise ImpossibleError("\n".join(faults))
    has = room() if weigh else None
    groups = _by(configs, "data")
    for group in [*groups[1:], *groups[:1]]:
        try:
            data = load(group[0])
        except UserError as error:
            faults[str(error)] = None
            continue
        except ImportError as error:
            faults[_lacking(group[0], error)] = None
            continue
        except Exception:
            continue  # a defect: the run ends by it, with its traceback
        if has is None:
            continue
        for alike in _by(group, "model", "train", "mesh"):
            has_there = has.of(build.mesh(alike[0].sections).devices)
            fault, warning = _weigh(alike[0], data, has_there, min(jobs, len(configs)))
            faults |= dict.fromkeys(fault)
            warnings += warning
    if faults:
        raise ImpossibleError("\n".join(faults))
    return list(dict.fromkeys(warnings))


def _few_devices(config: RunConfig) -> list[str]:
    """Say where a run takes fewer devices than it asks for; its numbers are the same there."""
    mesh, kind = build.mesh(config.sections), jax.devices()[0].platform
    recipe = build.recipe(config.sections)
    examples = recipe.batch_size // recipe.microbatches
    if examples % mesh.devices:  # of several processes
        raise UserError(
            f"a batch or microbatch of {examples} examples cannot be "
            f"dealt out to {mesh.devices} devices: choose a multiple as train.batch_size"
        )
    if mesh.devices >= mesh.data:
        return []
    more = (
        f"; XLA_FLAGS=--xla_force_host_platform_device_count={mesh.data} makes {mesh.data} of a "
        "processor"
        if kind == "cpu"
        else ""
    )
    return [
        f"mesh.data is {mesh.data}, and of the {jax.device_count()} devices here ({kind}) a run "
        f"takes {mesh.devices}, with the same numbers{more}"
    ]


def _by(configs: Iterable[RunConfig], *names: str) -> list[list[RunConfig]]:
    """Group runs by some of their sections; the seed does not count."""
    groups: dict[str, list[RunConfig]] = {}
    for config in configs:
        sections = config.with_seed(0).sections
        key = repr([sections.get(name) for name in names])
        groups.setdefault(key, []).append(config)
    return list(groups.values())


def _lacking(config: RunConfig, error: ImportError) -> str:
    name = config.sections["data"]["name"]
    package = f"; pip install {error.name}" if error.name else ""
    return f"the data '{name}' need a package that is not installed ({error}){package}"


def _weigh(config: RunConfig, data: Dataset, has: Room, jobs: int) -> tuple[list[str], list[str]]:
    """Say what is wrong, and what may be, with the memory that a run needs."""
    try:
        need = needed(config.sections, data)
        if need.least <= has.total < jobs * need.total / SUSPICIOUS:
            need = needed_exactly(config.sections, data)
    except Exception:
        return [], []  # an estimate stops nothing
    where = f"{config.arm} (batch size {config.sections['train']['batch_size']})"
    return _faults(where, need, has), _warnings(where, need, has, jobs)


def _faults(where: str, need: Need, has: Room) -> list[str]:
    sure = need.total if need.is_exact else need.least
    if sure <= has.total:
        return []
    least = "" if need.is_exact else "at least "
    return [
        f"{where} does not fit the memory: it needs {least}{in_bytes(sure)} ({need}), and there "
        f"are {in_bytes(has.total)}; {MEND}"
    ]


def _warnings(where: str, need: Need, has: Room, jobs: int) -> list[str]:
    least = need.total if need.is_exact else need.least
    if least > has.total or jobs * least <= has.free:
        return []
    times = f"{jobs} runs at once of {in_bytes(least)} each" if jobs > 1 else in_bytes(least)
    fewer = "; --jobs 1 makes one at a time" if jobs > 1 else ""
    return [
        f"{where} may not fit the memory: it takes {times} ({need}), and {in_bytes(has.free)} are "
        f"free{fewer}; {MEND}"
    ]
