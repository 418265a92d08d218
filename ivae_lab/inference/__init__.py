"""Models that were trained: loaded, exported, encoding rows and drawing new ones."""
