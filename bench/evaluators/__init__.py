"""What a trained policy is asked: one file an evaluator. May import judges, models, data and records."""
