"""How a report is shown: terminal, page, pictures, machine formats."""
