"""Whether a recipe can run on this machine: data, weights, memory, devices. No torch."""
