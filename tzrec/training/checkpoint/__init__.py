"""Checkpoints: torch.distributed.checkpoint directories plus a manifest, published whole.

::

    model_dir/model.ckpt-{step}/
      model/                  weights, one entry per parameter (``model.…``)
      optimizer/              states of the sparse and dense optimizers
      dense_ema/              averages of the dense weights, if training makes them
      trainer_state.pt        step, schedules, random state, train metrics
      dataloader_state.json   rows that were consumed, event time
      plan                    where the embedding tables lived
      vocabularies/           words and ids of the tables' features
      manifest.json           tables, versions, file sizes; written last
"""
