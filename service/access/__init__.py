"""Who calls and what each method asks of them: credentials, the policy table, default deny."""
