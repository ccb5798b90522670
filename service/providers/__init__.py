"""The external ITSM providers that an account can be linked to: one file per vendor."""

from collections.abc import Callable, Mapping

import httpx2

from service.providers.freshservice import Freshservice
from service.providers.freshservice import Options as FreshserviceOptions
from service.providers.jira import Jira
from service.providers.jira import Options as JiraOptions
from service.providers.port import Link, LinkOptions, Provider, ProviderName
from service.providers.servicenow import Options as ServiceNowOptions
from service.providers.servicenow import ServiceNow
from service.providers.zendesk import Options as ZendeskOptions
from service.providers.zendesk import Zendesk

_VENDORS: Mapping[ProviderName, Callable[[httpx2.AsyncClient, Link], Provider]] = {
    "freshservice": Freshservice,
    "zendesk": Zendesk,
    "servicenow": ServiceNow,
    "jira": Jira,
}
# The options that a link may have; any other is a mistake.
OPTIONS: Mapping[ProviderName, type[LinkOptions]] = {
    "freshservice": FreshserviceOptions,
    "zendesk": ZendeskOptions,
    "servicenow": ServiceNowOptions,
    "jira": JiraOptions,
}


def adapter(client: httpx2.AsyncClient, link: Link) -> Provider:
    """The adapter of a link."""
    return _VENDORS[link.provider](client, link)
