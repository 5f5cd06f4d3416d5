"""Benchmarks: every saver that an agent could pick, side by side on one machine. `make bench`."""
