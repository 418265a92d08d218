"""What run folders hold, read without PyTorch: rows, latents, pairs of seeds, summaries."""
