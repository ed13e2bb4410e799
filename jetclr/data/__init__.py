"""Jets from files and generators to padded batches, in numpy and Arrow only: nothing here imports JAX."""
