"""Images, the order they are read in, and latents on disk."""
