"""Handoff tickets: work that the roles of a project's team hand to each other (contracts/handoff.md)."""
