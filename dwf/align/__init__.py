"""One symmetry frame for a zoo: networks that differ by the order of their units become one."""
