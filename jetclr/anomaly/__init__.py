"""Anomaly detection on runs: heads fitted on frozen embeddings or on jets, kept, scored, and compared."""
