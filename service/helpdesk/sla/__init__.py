"""Service levels of helpdesk tickets: policies, the calendar, the clock, and events when a target is due."""
