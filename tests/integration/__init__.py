"""Tests that start whole processes."""
