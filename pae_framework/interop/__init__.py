"""Files of other projects: weights and latents trained elsewhere, and exports for them."""
