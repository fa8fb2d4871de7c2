"""What the verb ``synthesize`` is made of beside its declaration: how it gets on, and what it will cost."""
