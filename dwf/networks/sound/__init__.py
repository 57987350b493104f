"""Whether a row determines what a network of the user's own computes.

A zoo keeps of a network its floating-point parameters and buffers, and nothing else. So two
networks that are built anew and given one row must answer alike, whatever random numbers are drawn
meanwhile and in whichever process. That is tried out here before a network is trained; what else
decides on answers is found by name.
"""

from dwf.networks.sound.check import refuse_unsound, source_digest

__all__ = ["refuse_unsound", "source_digest"]
