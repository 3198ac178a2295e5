"""From a recipe to networks: the one place that builds components, on a device or on meta."""
