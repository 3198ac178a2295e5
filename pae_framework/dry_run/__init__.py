"""What a recipe would do, before it does anything: sizes, lengths, memory, FLOPs."""
