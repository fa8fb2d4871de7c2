"""The model: from the configuration or a folder, its attention inside documents, its loss."""
