"""Helpdesk tickets: support tickets of the employees and customers of tenants (contracts/helpdesk.md)."""
