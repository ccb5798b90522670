"""Who calls, and what each method requires of them: credentials, the policy table, default deny."""
