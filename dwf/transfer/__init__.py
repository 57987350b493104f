"""Fine-tuning: networks of several origins, trained further on one task under one schedule."""
