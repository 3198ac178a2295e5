"""``pae run --dry-run``: sizes, training lengths, memory and FLOPs of a recipe."""
