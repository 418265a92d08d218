"""Sweeps and queues: which runs a launcher has under way."""
