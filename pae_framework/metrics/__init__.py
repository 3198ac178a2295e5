"""Metrics of sets of images: features, their statistics, and the distances between them."""
