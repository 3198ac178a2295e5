"""The tokenizer, its loss, and prior refinement."""
