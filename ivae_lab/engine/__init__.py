"""The engine: trains S seeds of one model at once, and leaves a run folder. The only place that knows of S."""
