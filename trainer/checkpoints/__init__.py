"""What outlives a training: checkpoints, copies of them elsewhere, the exported model."""
