"""The external ITSM providers that an account can be linked to: one file per vendor."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from service.itsm.providers import freshservice, jira, servicenow, zendesk
from service.itsm.providers.port import Link, Provider, ProviderName

_VENDORS: Mapping[ProviderName, Callable[[httpx.AsyncClient, Link], Provider]] = {
    "freshservice": freshservice.Freshservice,
    "zendesk": zendesk.Zendesk,
    "servicenow": servicenow.ServiceNow,
    "jira": jira.Jira,
}
# What may stand in the options of a link; anything else is a mistake.
OPTIONS: Mapping[ProviderName, Any] = {
    "freshservice": freshservice.Options,
    "zendesk": zendesk.Options,
    "servicenow": servicenow.Options,
    "jira": jira.Options,
}


def provider(client: httpx.AsyncClient, link: Link) -> Provider:
    """The provider that a link leads to."""
    return _VENDORS[link.provider](client, link)
