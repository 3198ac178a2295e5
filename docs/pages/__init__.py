"""The generated pages, one module each; :mod:`pages.markdown` has shared helpers. No torch."""
