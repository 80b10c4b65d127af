"""Guards: what money is not to be lost to, and how it is noticed in time."""
