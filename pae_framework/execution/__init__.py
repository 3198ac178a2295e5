"""What stages use: their context, finished networks, latents, trainings and processes."""
