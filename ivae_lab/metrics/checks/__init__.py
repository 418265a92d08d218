"""Assumptions of the theorems, checked on a trained model."""
