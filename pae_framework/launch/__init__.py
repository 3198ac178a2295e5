"""Carrying out a plan of stages."""
