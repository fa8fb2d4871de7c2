"""Reading records from files, cleaning them, cutting them into chunks, and recasting published sets."""
