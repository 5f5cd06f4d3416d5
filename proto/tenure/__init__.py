"""Protocol of Tenure; the messages live in `tenure.v1`."""
