"""What a model takes: arguments, shapes, batches."""
