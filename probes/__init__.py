"""What a representation is worth: features and labels in, numbers and plots out.

Everything here takes numpy arrays and knows nothing of how the features were made, so the same probes
serve a trained encoder, an untrained one, raw constituents and features from somebody else's code.

- `probes.metrics`: AUC, background rejection, significance improvement, with bootstrap intervals;
- `probes.linear`: logistic regression and linear discriminant analysis on frozen features;
- `probes.baselines`: controls a learned representation has to beat;
- `probes.plots`, `probes.report`: figures, tables and one self-contained HTML page.

Throughout: label 1 is signal, label 0 is background, and a larger score means "more like signal".
"""
