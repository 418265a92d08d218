"""Draw runs and the figures of papers."""
