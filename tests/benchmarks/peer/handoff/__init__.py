"""The handoff API: a project's list, get, create, and update under the optimistic lock of `updated_at`."""
