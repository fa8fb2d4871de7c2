"""Templates: chains of documents and pairs rendered into finished training texts."""
