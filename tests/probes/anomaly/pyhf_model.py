"""pyhf as the oracle of the counting experiment."""

import math
import warnings


def pyhf_p_value(counted: float, background: float, error: float) -> float:
    """`local_p_value` of one window by pyhf, with its own minimiser: a check on the closed form from outside."""
    with warnings.catch_warnings():
        # jsonschema's, of how pyhf looks up its schemas.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        import pyhf

        # Strength 1 is about one standard deviation: minimisers want parameters of order one.
        signal = max(1.0, math.sqrt(background))
        model = pyhf.simplemodels.uncorrelated_background([signal], [background], [error])
        data = [float(counted), *model.config.auxdata]
        # Neither the excess nor the background, as a multiple of what is expected, may end at a bound.
        bounds = [(0.0, 10 + 2 * counted / signal), (1e-10, 10 + 2 * counted / background)]
        return float(pyhf.infer.hypotest(0.0, data, model, test_stat="q0", par_bounds=bounds))
