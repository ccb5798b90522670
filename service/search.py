"""Full-text search: what asks PostgreSQL for the words of a query."""


def tsquery(text: str) -> str:
    """What asks PostgreSQL for every word of a text, or words that begin so. A plus is in no word."""
    words = (word.replace("\\", "\\\\").replace("'", "''") for word in text.replace("+", " ").split())
    return " & ".join(f"'{word}':*" for word in words)
