"""From the training loop to files: batches, segments, the writer thread."""
