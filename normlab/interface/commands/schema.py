"""`normlab schema`."""

import json

from normlab.interface.commands import Panel

PANEL = Panel.LOOK_UP


def command() -> None:
    """Print the JSON schema of a config, by which editors complete and check YAML."""
    from normlab.configs.json_schema import json_schema

    print(json.dumps(json_schema(), indent=1))
