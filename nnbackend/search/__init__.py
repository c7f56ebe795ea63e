"""Search for good settings, with Optuna's samplers, pruners and study files.

`space` has the values to try, `objective` one trial, `study` the loop over trials, `api` the
function `nnbackend.tune`. Optuna is an extra: only `study` and `sampler` import it.
"""
