"""A named call of a resolved config, and the mistake that valid sections may make together."""

from dataclasses import dataclass
from typing import Any

from normlab.data.described import hashable
from normlab.errors import UserError


class SectionError(UserError):
    """Valid sections cannot work together; `section` is the one to mend."""

    def __init__(self, section: str, field: str | None, message: str):
        super().__init__(message)
        self.section, self.field = section, field


@dataclass(frozen=True)
class Call:
    """A named call of a resolved config, with its arguments."""

    name: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, section: dict[str, Any], *skip: str) -> "Call":
        """Split a section into its name and its arguments; lists become tuples, to be hashable."""
        arguments = {
            key: hashable(value) for key, value in section.items() if key not in ("name", *skip)
        }
        return cls(section["name"], arguments)
