"""The report of a run: what is noted while it trains, and the page that is made of it.

- `history`: points of curves and time, kept in ``model_dir`` over resumed runs.
- `tasks`, `scores`: what the model predicts, counted in bins while it is evaluated.
- `bins`, `statistics`: the bins, and what they say (ROC, calibration, quantiles); no torch.
- `svg`, `charts`, `html`, `page`: the pictures and the page.
- `run_report`: all of it for one run.
"""
