"""Real servers for the tests: Postgres, Valkey and Tenure itself, on free ports of loopback."""
