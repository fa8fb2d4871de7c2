"""From shard sets to batches: which rows a step takes, where they lie, and what every token weighs."""
