"""How each sample was learned: its statistics over the epochs, and what they say about its label.

Every function takes an open `reader` and a resolved `selection` and returns an `Answer`; its `data` has one row each:

- `statistics.dynamics(reader, selection, *, early_epochs=10, burn_in=2, truth=None)`: per sample
  `mode, ds_id, sample_id, label, n_obs, stale, <metric>_last, _first, _mean, _min, _max, _std, _slope,
  confidence, variability, correctness, forgetting, never_learned, first_learned, learned_for_good, aum, el2n, ema,
  rank_jump, rank_jump_epoch, rank_jump_direction, region`; `extra["truth"]` when `truth` is given.
- `suspects.suspects(reader, selection, found, *, top=100)`: probably mislabelled samples, most suspicious first:
  `mode, ds_id, sample_id, score, reason, label, suggested_label`.
- `label_issues.label_issues(reader, selection, *, top=None)`: the same columns and `epoch`, from kept probabilities.
- `findings.rank_jumps(reader, selection, found, *, top=10)`: sudden changes of rank:
  `mode, ds_id, sample_id, label, score, epoch, direction, rank_from, rank_to, reason`.
- `findings.findings(reader, selection, found, *, top=10)`: what to look at first:
  `finding, mode, ds_id, sample_id, label, score, epoch, reason, suggested_label`, `finding` one of `Finding`.

`found` is `computed.compute(reader, selection, *, early_epochs=10, burn_in=2)`: one pass over the epochs for all three.
"""
