"""Every script of `examples/` run against a whole Tenure, and beside LangGraph's own saver."""
