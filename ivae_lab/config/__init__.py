"""Compose configurations, check them against constructors, build them, and name runs by their digests."""
