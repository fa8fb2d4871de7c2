"""What the verb ``shard`` is made of: the texts of a table, in their order."""
