"""What operators do: accounts, API keys, projects, members, tenants."""
