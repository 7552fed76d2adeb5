"""Fills in the templates of pages and of what notebooks show."""

from functools import cache
from typing import Any

import jinja2


@cache
def environment(package: str) -> jinja2.Environment:
    """Return the environment of the templates in a package's folder `templates`.

    Text is escaped, and a name that a template lacks is an error.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def fill_in(package: str, template: str, **names: Any) -> str:
    """Return a template of a package with these names filled in."""
    return environment(package).get_template(template).render(**names)
