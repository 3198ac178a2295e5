"""Running a recipe: :func:`~pae_framework.launch.start.run_recipe`, launchers, sweeps, imports."""
