"""Webhooks of any dialect: receivers are notified of events by signed messages, at least once, in order per ticket."""
