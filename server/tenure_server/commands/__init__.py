"""Commands of `tenure` that talk to a server; those in `__main__` run one or use the database."""
