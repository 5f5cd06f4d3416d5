"""Servicers: they check and translate requests (`wire`) and call the storage contract (`storage.ports`).

They raise `errors.*` and never set a status: `gate` does that once for all of them.
"""
