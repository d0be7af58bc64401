"""Checkpoints: torch.distributed.checkpoint directories plus a manifest, published whole.

::

    model_dir/model.ckpt-{step}/
      model/                  weights, one entry per parameter (``model.…``)
      optimizer/              states of the sparse and dense optimizers
      trainer_state.pt        step, schedules, random state, train metrics
      dataloader_state.json   rows that were consumed
      manifest.json           tables, versions, file sizes; written last
"""
