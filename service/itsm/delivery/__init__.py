"""Deliveries of ITSM tickets to the account's external provider."""
