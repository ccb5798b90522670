"""Webhooks: subscribers are told of events by signed messages, at least once and in order per ticket."""
