"""Runnable examples of LangGraph's memory on Tenure: `python -m examples.chatbot`."""
