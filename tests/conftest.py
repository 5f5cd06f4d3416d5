"""Makes the fixtures of `tests/harness` known to all tests."""

pytest_plugins = ["tests.harness.fixtures"]
