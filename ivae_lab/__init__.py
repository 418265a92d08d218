"""ivae_lab: the lab where researchers in identifiable representation learning check a paper's claim."""

__version__ = "0.1.0"
