"""Hypothesis profiles of the run."""

from __future__ import annotations

from tests.property import profiles

profiles.load()
