"""Several processes that work as one: how they find each other, agree, and fail together."""
