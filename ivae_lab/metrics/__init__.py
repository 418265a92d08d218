"""Metrics: what is said about one seed on one split, given its posterior and, where known, the true sources."""
