"""Properties of networks told from their weights: predictors, baselines, and what is possible."""
