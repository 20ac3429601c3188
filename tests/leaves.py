"""One of each leaf, for tests that run over all of them; `test_configs` holds this list against conf/."""

from smallbatch import predictions, schedules, solvers, timesteps, weightings

PATHS = {
    "preserving": schedules.VariancePreserving(),
    "exploding": schedules.VarianceExploding(),
    "straight": schedules.Straight(),
}
SCHEDULES = {
    "cosine": schedules.Cosine(PATHS["preserving"]),
    "ddpm_linear": schedules.LinearBetas(PATHS["preserving"]),
    "edm": schedules.LogLinear(PATHS["exploding"]),
    "rectified_flow": schedules.Logistic(PATHS["straight"]),
}
PREDICTIONS = {
    "x0": predictions.X0(),
    "eps": predictions.Eps(),
    "v": predictions.V(),
    "flow": predictions.Flow(),
    "edm": predictions.EDM(0.5),
}
WEIGHTINGS = {
    "plain": weightings.Plain(),
    "in_x0": weightings.InX0(),
    "in_eps": weightings.InEps(),
    "in_v": weightings.InV(),
    "min_snr": weightings.MinSNR(),
    "edm": weightings.EDMWeight(),
}
DRAWS = {
    "iid": timesteps.IID(),
    "stratified": timesteps.Stratified(),
    "low_discrepancy": timesteps.LowDiscrepancy(),
}
DENSITIES = {"uniform": timesteps.Uniform(), "lognormal": timesteps.LogNormal()}
SOLVERS = {  # with the order of its global error
    "ddim": (solvers.DDIM(), 1),
    "heun": (solvers.Heun(), 2),
    "dpmpp_2m": (solvers.DPMpp2M(), 2),
}
