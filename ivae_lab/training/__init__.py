"""One run and its folder: settings, training, checkpoints, provenance; which runs share a training."""
