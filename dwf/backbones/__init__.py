"""Networks that generators are made of."""
