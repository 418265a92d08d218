"""Densities: log-probabilities, divergences, natural parameters and draws."""
