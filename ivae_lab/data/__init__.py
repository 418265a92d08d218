"""Data sets: called with a seed, each gives the three parts of its rows (`Splits`)."""
