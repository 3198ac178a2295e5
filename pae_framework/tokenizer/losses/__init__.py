"""The tokenizer's loss: its terms, how they are weighted, and their sum."""
