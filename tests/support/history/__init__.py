"""A service under faults: what its clients saw (`records`), what its database then holds, and whether they agree."""
