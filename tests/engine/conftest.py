"""Small runs for every test of this folder."""

from tests.shared.small_runs import (
    by_hand,
    config,
    make,
    own_files,
    promotion_as_users_have_it,
    tiny,
)

__all__ = ["by_hand", "config", "make", "own_files", "promotion_as_users_have_it", "tiny"]
