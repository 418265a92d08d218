"""Densities: their log-probabilities, divergences, natural parameters and draws."""
