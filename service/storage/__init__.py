"""The PostgreSQL boundary: connections, statements with their scope, transactions, driver errors in our words."""
