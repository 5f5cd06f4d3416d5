"""Tenure: shared memory for LangGraph agents, the service."""

__version__ = "0.1.0"
