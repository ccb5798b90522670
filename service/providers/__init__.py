"""Temporary."""

from service.itsm.providers import OPTIONS, provider

__all__ = ["OPTIONS", "provider"]
