"""What evaluators are given, and what is made of a run's results."""
