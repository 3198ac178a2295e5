"""Discriminators: the tokenizer's opponents in the adversarial term."""
