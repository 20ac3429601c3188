"""One of each leaf, for tests that run over all of them; `test_configs` holds this list against conf/."""

import math

from smallbatch import densities, draws, predictions, sampler, schedules, solvers, tables, variances, weightings

PATHS = {
    "preserving": schedules.VariancePreserving(),
    "exploding": schedules.VarianceExploding(),
    "straight": schedules.Straight(),
}
SCHEDULES = {
    "cosine": schedules.Cosine(PATHS["preserving"]),
    "ddpm_linear": tables.LinearBetas(PATHS["preserving"]),
    "edm": schedules.LogLinear(PATHS["exploding"]),
    "iddpm_cosine": tables.CosineBetas(PATHS["preserving"]),
    "linear_logsnr": schedules.LogLinear(PATHS["preserving"], math.exp(-5), math.exp(5)),
    "rectified_flow": schedules.Logistic(PATHS["straight"]),
    "sigmoid": schedules.Sigmoid(PATHS["preserving"]),
}
CONTINUOUS = {name: schedule for name, schedule in SCHEDULES.items() if not isinstance(schedule, tables.Table)}
TABLES = {name: schedule for name, schedule in SCHEDULES.items() if isinstance(schedule, tables.Table)}
PREDICTIONS = {
    "x0": predictions.X0(),
    "eps": predictions.Eps(),
    "v": predictions.V(),
    "flow": predictions.Flow(),
    "edm": predictions.EDM(0.5),
}
VARIANCES = {"eps_learned_variance": variances.LearnedVariance(predictions.Eps(), TABLES["ddpm_linear"])}
WEIGHTINGS = {
    "plain": weightings.Plain(),
    "in_x0": weightings.InX0(),
    "in_eps": weightings.InEps(),
    "in_v": weightings.InV(),
    "min_snr": weightings.MinSNR(),
    "edm": weightings.EDMWeight(),
    "snr": weightings.InEps(),
    "truncated_snr": weightings.TruncatedSNR(),
    "soft_min_snr": weightings.SoftMinSNR(),
    "p2": weightings.P2(),
    "debias": weightings.Debias(),
    "sigmoid": weightings.SigmoidWeight(),
}
DRAWS = {
    "iid": draws.IID(),
    "stratified": draws.Stratified(),
    "low_discrepancy": draws.LowDiscrepancy(),
}
DENSITIES = {
    "uniform": densities.Uniform(),
    "lognormal": densities.LogNormal(),
    "logit_normal": densities.LogitNormal(mean=-0.4, std=0.8, shift=2.0),
    "laplace": densities.Laplace(mean=0.5),
    "toward_noise": densities.TowardNoise(power=1.5),
    "toward_data": densities.TowardData(power=1.5),
    "window": densities.Window(low=0.3, high=0.7),
}
SOLVERS = {  # with the order of its global error
    "ddim": (solvers.DDIM(), 1),
    "heun": (solvers.Heun(), 2),
    "dpmpp_2m": (solvers.DPMpp2M(), 2),
    "unipc": (solvers.UniPC(), 3),
}
STOCHASTIC = {
    "ddim_eta_1": solvers.DDIM(eta=1.0),
    "ancestral": solvers.Ancestral(),
    "ancestral_large": solvers.Ancestral(variance=1.0),
}
EVERY_SOLVER = {name: solver for name, (solver, _) in SOLVERS.items()} | STOCHASTIC
GRIDS = {  # that work on every schedule
    "trailing": sampler.Trailing(),
    "uniform_logsnr": sampler.UniformLogSNR(),
    "karras": sampler.Karras(),
}
