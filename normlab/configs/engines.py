"""Reads the engine that a config or a command names: where runs are made, and never what they are.

The engine is no part of a run's identity, so the same config has the same runs on every engine.
"""

from typing import Any

from normlab.catalogue import ENGINES, UntrustedError
from normlab.configs.document import ConfigError, Node, Problem, named, parse, show
from normlab.configs.naming import key_of
from normlab.configs.own_code import failure_outside, not_run
from normlab.configs.signatures import Checked, check_call
from normlab.errors import UserError

KEY = "engine"


def read_engine(config: Node) -> Checked[dict[str, Any] | None]:
    """Read the key `engine` of a config; None if it has none."""
    given = config.get(KEY)
    if given is None or given.content is None:
        return None, []
    return check_engine(given)


def check_engine(given: Node) -> Checked[dict[str, Any] | None]:
    """Check an engine: a name, or a mapping with a name and options."""
    call = named(given)
    if not isinstance(call.content, dict):
        message = f"'{KEY}' must be a name or a mapping with a name, found {show(given.value)}"
        return None, [Problem(given.mark, message)]
    name = call.value.get("name")
    if not isinstance(name, str) or ":" not in name:
        return check_call(call, ENGINES, KEY)
    here = call.mark_at(("name",))
    try:
        ENGINES.load(name)  # its options are its own matter
    except UntrustedError:
        return None, [not_run(name, here)]
    except UserError as error:
        return None, [Problem(here, str(error))]
    except (Exception, SystemExit) as error:
        return None, [Problem(here, failure_outside(name, error))]
    return call.value, []


def is_of_engine(override: str) -> bool:
    """Return whether an override chooses the engine, which changes no run.

    >>> is_of_engine("engine.jobs=3"), is_of_engine("seed=3")
    (True, False)
    """
    return key_of(override)[:1] == (KEY,)


def engine_of_words(text: str, of_config: dict[str, Any] | None) -> dict[str, Any]:
    """Read the engine that a command names, as in `dask` or `{name: dask, address: tcp://n1:8786}`.

    A bare name of the config's own engine has the config's options.

    Raises:
        ConfigError: it is none.
    """
    given = parse(text, f"--{KEY}")
    if of_config is not None and given.value == of_config["name"]:
        return of_config
    call, problems = check_engine(given)
    if call is None or problems:
        raise ConfigError(problems)
    return call


def name_in(text: str) -> str:
    """Return the name in the words of a command, as far as they can be read.

    >>> name_in("{name: 'mine:make', size: 3}"), name_in("dask")
    ('mine:make', 'dask')
    """
    try:
        value = parse(text, f"--{KEY}").value
    except UserError:
        return ""
    name = value.get("name") if isinstance(value, dict) else value
    return name if isinstance(name, str) else ""
