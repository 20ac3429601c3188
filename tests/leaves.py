"""One of each leaf, for tests that run over all of them; `test_configs` holds this list against conf/."""

import math

from smallbatch import (
    densities,
    draws,
    fusing,
    mixtures,
    predictions,
    proposals,
    sampler,
    schedules,
    slots,
    solvers,
    tables,
    teaching,
    uncertainty,
    variances,
    weightings,
)

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
FUSES = {
    "closed_form": fusing.ClosedForm,
    "gate": fusing.Gate,
    "winners": fusing.Winners,
}  # those that adapt hold state
TEACHES = {
    "blend": teaching.OnBlend(),
    "native": teaching.OnHeads(),
    "both": teaching.Both(),
    "min_raw": teaching.SmallestRaw(),
    "min_common": teaching.SmallestCommon("batch"),
}
MIXTURES = {
    "mixed_blend": mixtures.Mixture(fusing.ClosedForm(), TEACHES["blend"]),
    "mixed_gate": mixtures.Mixture(fusing.Gate(), TEACHES["native"]),
    "mixed_min_raw": mixtures.Mixture(fusing.Winners(), TEACHES["min_raw"]),
    "mixed_min_common": mixtures.Mixture(fusing.Winners(), TEACHES["min_common"]),
}
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
    "uncertainty": uncertainty.Uncertainty(weightings.Plain()),
    "uncertainty_binned": uncertainty.UncertaintyBinned(weightings.Plain()),
}
DRAWS = {
    "iid": draws.IID(),
    "stratified": draws.Stratified(),
    "low_discrepancy": draws.LowDiscrepancy(),
    "pairs": draws.Pairs(),
    "rounds": draws.Rounds(10),
}
DENSITIES = {
    "uniform": densities.Uniform(),
    "lognormal": densities.LogNormal(),
    "logit_normal": densities.LogitNormal(mean=-0.4, std=0.8, shift=2.0),
    "laplace": densities.Laplace(mean=0.5),
    "toward_noise": densities.TowardNoise(power=1.5),
    "toward_data": densities.TowardData(power=1.5),
    "u_shaped": densities.UShaped(),
    "window": densities.Window(low=0.3, high=0.7),
}
PROPOSALS = {  # classes, for they learn
    "as_drawn": proposals.AsDrawn,
    "importance": lambda: proposals.Importance(steps=100),
    "root_loss": proposals.RootLoss,
    "pooled_gradient": proposals.PooledGradient,
    "loss_proportional": proposals.LossProportional,
    "online_slots": slots.OnlineSlots,
    "paper_slots": slots.PaperSlots,
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
