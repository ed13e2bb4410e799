"""`jetclr bench`: speed and memory of the parts, measured on this machine, as JSON lines."""
