"""Handoff tickets: work that the roles of a project's team pass to each other (contracts/handoff.md)."""
