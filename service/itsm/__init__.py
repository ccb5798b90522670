"""ITSM tickets: IT support tickets of customer accounts (contracts/itsm.md)."""
