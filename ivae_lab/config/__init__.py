"""Configurations: composed, checked against constructors, built, and named by what changes numbers."""
