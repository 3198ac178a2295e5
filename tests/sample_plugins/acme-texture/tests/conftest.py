from pae_framework.testing.pytest import *  # noqa: F403
