"""Pictures of runs and figures."""
