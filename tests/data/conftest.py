"""Decoded pictures of these tests lie in a folder of each test's own."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NORMLAB_CACHE", str(folder))
    return folder
