"""Priors over the latents: modules that give a distribution over z, conditional on u or not."""
