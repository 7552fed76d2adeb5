"""Mix-LN: post-norm in the first blocks, pre-norm in the others."""

import math
from dataclasses import dataclass

from normlab.core import Array
from normlab.errors import require_field
from normlab.placements.contract import TokenBlock, TokenPlacement, placement
from normlab.placements.post import Post
from normlab.placements.pre import Pre


@placement(paper="arXiv:2412.13795", held_to="code")
@dataclass(frozen=True)
class MixLN(TokenPlacement):
    """Mix-LN: the first `floor(share * depth)` blocks are post-norm, and the others pre-norm.

    The source is Li et al. 2025, who find a quarter best. A last normaliser stands before the head.

    Attributes:
        share: the share of blocks that are post-norm; at least one must be.
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        require_field(0 < self.share <= 1, "share", self.share, "above 0 and at most 1")

    def block(self, x: Array, at: TokenBlock) -> Array:
        kind = Post() if at.number <= self._posts(at.depth) else Pre()
        return kind.block(x, at)

    def require(self, depth: int, qk_norm: str) -> None:
        allowed = f"at least {1 / depth:g}, so that one of {depth} blocks is post-norm"
        require_field(self._posts(depth) >= 1, "share", self.share, allowed)

    def _posts(self, depth: int) -> int:
        return math.floor(self.share * depth + 1e-9)  # 0.3 * 10 is a little less than 3
