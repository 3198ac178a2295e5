"""The tokenizer: pixels <-> latents, its loss, and the prior refinement that comes before it."""
