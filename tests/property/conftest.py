"""Hypothesis profiles, and a database for the stores that are compared."""

from __future__ import annotations

from tests.property import profiles
from tests.storage.conftest import contract_database

__all__ = ["contract_database"]

profiles.load()
