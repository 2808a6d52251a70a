"""Which samples the next training takes, and why: `select`."""
