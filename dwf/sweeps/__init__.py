"""Sweeps: the stages of the whole way, tried with many settings under Ray Tune."""
