"""Read job records and tell which recipe did best, by how much, how sure that is and at what cost. No torch."""
