"""Retention: rows that are older than a setting keeps them are counted, and deleted in small transactions."""
