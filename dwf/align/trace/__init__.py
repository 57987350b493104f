"""Trace a module: which axes of its tensors can be permuted together."""

from dwf.align.trace.run import trace_groups

__all__ = ["trace_groups"]
