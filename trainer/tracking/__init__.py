"""What a training says of itself: numbers of every step, and the MLflow run."""
