"""Three documented ticket APIs as one gRPC service over Postgres."""
