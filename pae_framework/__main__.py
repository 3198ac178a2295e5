"""``python -m pae_framework``: the same as ``pae``."""

from pae_framework.cli.app import main

main()
