"""Runs in an object store: `objects` is the store, `sync` pushes and pulls, `upload` follows a training."""
