"""Where checkpoints live: the contract (`ports`) and what implements or wraps it."""
