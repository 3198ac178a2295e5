"""Stripes for pae-framework."""
