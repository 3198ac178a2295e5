"""What a run shows: tables (no torch), pictures, plots, and one offline HTML page."""
