"""What to say about an answer: frozen reports, built once and rendered in every format."""
