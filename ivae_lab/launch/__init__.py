"""Sweeps and the Slurm queue: runs that a launcher has submitted."""
