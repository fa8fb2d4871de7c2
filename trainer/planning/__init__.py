"""What a training will take: steps, floating-point operations, memory and time."""
