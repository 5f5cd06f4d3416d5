"""Version 1 of the protocol: generated messages and service stubs."""
