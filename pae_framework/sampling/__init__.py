"""Sampling images from a finished generator."""
