"""What a stage is given: its context, finished networks, latents, and processes."""
