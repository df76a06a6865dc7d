"""What was done to every layer and why: as data, as JSON, and as text for terminals and browsers."""
