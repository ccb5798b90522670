"""The subcommands of `tickets`."""
