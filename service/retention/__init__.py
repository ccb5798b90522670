"""What an operator does not keep for ever: kinds of rows with an age, deleted in small transactions."""
