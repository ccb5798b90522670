"""`make bench`: the service beside what a user would build instead, and beside PostgreSQL itself."""
