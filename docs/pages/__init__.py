"""The generated pages, one module each; :mod:`pages.markdown` holds what they share. No torch."""
