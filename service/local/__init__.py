"""Everything on one machine: PostgreSQL, Envoy and the service as child processes, and demo data.

PostgreSQL and Envoy are wheels: the extra `local`, for Linux (glibc 2.31 and newer, x86-64 and arm64).
"""
