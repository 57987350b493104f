"""How good and how new networks are: scores, novelty, baselines and the report."""
