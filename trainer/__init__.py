"""Shards in, models out: data, model, objective, loop, checkpoints, tracking, export and evaluation."""
