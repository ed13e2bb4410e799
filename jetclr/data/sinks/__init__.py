"""Formats that columns of jets are written in, and read again to be joined; `jetclr.data.columns` knows the endings."""
