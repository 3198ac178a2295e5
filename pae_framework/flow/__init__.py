"""Flow matching: path, times, objective, guidance, solvers and sampling."""
