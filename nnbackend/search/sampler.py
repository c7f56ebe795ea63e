"""The sampler of a search: TPE, seeded for each trial by its number.

So a resumed study, and one that several workers share, draws other values in each trial, and the
same seed gives the same trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState


class NumberedSampler(BaseSampler):
    """Tree-structured Parzen estimator whose random numbers depend on (seed, trial number).

    Source: Bergstra et al. 2011, as optuna.samplers.TPESampler computes it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._tpe = TPESampler(seed=0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for a trial."""
        seed = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]
        self._tpe = TPESampler(seed=int(seed))
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the space of settings that are drawn together."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values of settings that are drawn together."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Return a value of one setting."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass the end of a trial to the sampler."""
        self._tpe.after_trial(study, trial, state, values)
