"""Everything on one machine: PostgreSQL, Envoy and the service as child processes, and demo data."""
