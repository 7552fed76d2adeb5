"""What people and reports call the values of a sweep's axes."""

from typing import Any

from normlab.configs.yaml_source import flow


def is_call(value: Any) -> bool:
    """Whether a value names something of the catalogue."""
    return isinstance(value, dict) and "name" in value


def call_label(call: dict[str, Any]) -> str:
    """A named call in short: its name, and the arguments that were given.

    >>> call_label({"name": "group_norm", "groups": 4})
    'group_norm(groups=4)'
    """
    arguments = ", ".join(f"{key}={value}" for key, value in call.items() if key != "name")
    return f"{call['name']}({arguments})" if arguments else call["name"]


def value_label(value: Any) -> Any:
    """A value of an axis for people: numbers, text and the like as they are, the rest in short.

    >>> value_label({"name": "identity"}), value_label([8, 8]), value_label(0.1)
    ('identity', '[8, 8]', 0.1)
    """
    if is_call(value):
        return call_label(value)
    return flow(value) if isinstance(value, list | dict) else value


def as_label(key: Any) -> str:
    """A key of a mapping as the label it is: `8` is as good as `'8'`.

    >>> as_label("batch_norm"), as_label(8)
    ('batch_norm', '8')
    """
    return key if isinstance(key, str) else flow(key)
