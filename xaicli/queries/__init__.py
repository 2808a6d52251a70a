"""What a run's rows say, each question written once for every engine."""
