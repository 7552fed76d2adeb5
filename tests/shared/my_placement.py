"""A placement as a person writes one: one file, outside the package."""

from dataclasses import dataclass

from normlab.placements.contract import TokenPlacement, placement


@placement(paper="of last month")
@dataclass(frozen=True)
class Halved(TokenPlacement):
    """Pre-norm with half the branch: `x + f(norm(x)) / 2`."""

    def block(self, x, at):
        """Compute one block."""
        x = x + at.attention(at.norm(x)) / 2
        return x + at.mlp(at.norm(x)) / 2
