"""Local mode: a real Postgres and a real Valkey as our children, for `tenure dev` and for the tests."""
