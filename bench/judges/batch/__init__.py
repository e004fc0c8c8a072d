"""Half-price batches of comparisons: their endpoint, the ledger of what was sent, and what came back."""
