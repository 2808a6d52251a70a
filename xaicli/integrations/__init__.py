"""Callbacks for other training loops; each imports its library only when used."""
