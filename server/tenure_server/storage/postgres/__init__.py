"""Checkpoints, keys and tenants in Postgres: the only place that knows SQL."""
