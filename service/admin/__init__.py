"""The operations of operators: accounts, API keys, projects, members, tenants, links to providers."""
