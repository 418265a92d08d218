"""What all floors speak of: arrays, batches and splits, exponential families, mixtures as generators."""
