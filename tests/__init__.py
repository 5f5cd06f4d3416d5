"""The tests; see CONTRIBUTING.md for what runs where."""
