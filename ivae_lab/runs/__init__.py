"""Read run folders without PyTorch: rows, latents, pairs of seeds, summaries."""
