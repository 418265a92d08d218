"""Data types that all packages share: arrays, batches and splits, exponential families, mixture generators."""
