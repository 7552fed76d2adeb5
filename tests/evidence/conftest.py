"""Fixtures that the tests of evidence share."""

from tests.shared.small_runs import config, promotion_as_users_have_it

__all__ = ["config", "promotion_as_users_have_it"]
