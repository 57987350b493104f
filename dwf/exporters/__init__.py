"""Networks out of a zoo: files that other tools load, one exporter for each format."""
