"""The linear-probe benchmark: any number of representations side by side, with honest baselines and errors."""
