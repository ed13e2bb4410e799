"""What a representation is worth: features and labels in, numbers and plots out.

Everything here takes numpy arrays and knows nothing of how the features were made, so the same probes
serve a trained encoder, an untrained one, raw constituents and features from somebody else's code.

- `probes.metrics`, `probes.multiclass`, `probes.delong`: AUC, rejection, significance improvement, intervals, tests;
- `probes.calibration`, `probes.dependence`, `probes.geometry`: reliability, mass sculpting, how embeddings lie;
- `probes.linear`, `probes.multinomial`, `probes.ridge`, `probes.neighbours`, `probes.mlp`, `probes.disco`: probes on
  frozen features, which fit a million jets in bounded memory; `probes.fewshot`: draws of few labels;
- `probes.baselines`, `probes.observables`, `probes.efp`: controls a learned representation has to beat;
- `probes.training`, `probes.taggers`: supervised networks small enough for a laptop;
- `probes.plots`, `probes.report`: figures, tables and one self-contained HTML page.

Only networks, `probes.efp` and `probes.observables` need JAX.

Throughout: label 1 is signal, label 0 is background, and a larger score means "more like signal".
"""
