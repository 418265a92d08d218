"""Sweeps on a real Slurm cluster of one machine, started and stopped by the tests."""
