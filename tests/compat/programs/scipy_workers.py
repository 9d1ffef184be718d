"""SciPy's and emcee's parameters that take a pool: scipy.optimize with workers=pool.map, emcee with pool=."""
# needs: scipy, emcee, numpy

import multiprocessing as mp

import emcee
import numpy as np
from scipy.integrate import quad_vec
from scipy.optimize import brute, differential_evolution, rosen


def log_probability(x):
    return -0.5 * float(x @ x)


if __name__ == "__main__":
    with mp.Pool(2) as pool:
        best = differential_evolution(
            rosen, [(0, 2)] * 3, workers=pool.map, updating="deferred", rng=1, maxiter=60, popsize=8
        )
        print(np.round(best.x, 2), round(best.fun, 4), best.nfev)
        print(np.round(brute(rosen, ((0.0, 2.0), (0.0, 2.0)), Ns=6, workers=pool.map, finish=None), 3))
        print(round(quad_vec(np.sin, 0, np.pi, workers=pool.map)[0], 6))
        start = np.random.default_rng(3).normal(size=(8, 2))
        np.random.seed(5)
        sampler = emcee.EnsembleSampler(8, 2, log_probability, pool=pool)
        sampler.run_mcmc(start, 30)
        print(sampler.get_chain().shape, np.round(sampler.get_chain()[-1, 0], 6))
