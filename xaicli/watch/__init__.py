"""A training as it runs, from its folder: `watch`."""
