"""Fixtures of the tests of verification."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
