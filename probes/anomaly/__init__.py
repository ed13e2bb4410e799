"""Anomaly detection without labels: heads that learn what is usual, searches for resonances, and their statistics.

A `Head` (`probes.anomaly.head`) is fitted on background alone and gives `Detector`s, whose score is larger the stranger
a jet is. Heads that see features take tables [jets, features], such as frozen embeddings; the others see the
constituents themselves. A search (`probes.anomaly.search`) compares a signal region with its sidebands instead.
"""
