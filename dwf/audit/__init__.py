"""The audit: many generators on one zoo under one budget, in one table beside every null arm."""
