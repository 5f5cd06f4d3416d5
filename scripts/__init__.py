"""Development scripts, run as `python -m scripts.<name>` by the Makefile."""
