"""A small click log with a planted signal."""

import numpy as np
import pyarrow as pa

NUM_USERS, NUM_ITEMS, NUM_CATES = 40, 30, 5


def click_table(num_rows: int, seed: int) -> pa.Table:
    """Rows whose click probability depends on user, item, price and history."""
    rng = np.random.default_rng(seed)
    effects = np.random.default_rng(0)
    of_user, of_item = effects.normal(size=NUM_USERS), effects.normal(size=NUM_ITEMS)
    user = rng.integers(0, NUM_USERS, num_rows)
    item = rng.integers(0, NUM_ITEMS, num_rows)
    price = rng.uniform(0, 1, num_rows)
    lengths = rng.integers(0, 5, num_rows)
    history = [rng.integers(0, NUM_ITEMS, n) for n in lengths]
    seen = np.array([item[i] in h for i, h in enumerate(history)])
    logit = 2 * of_user[user] + 2 * of_item[item] - 2 * price + seen
    label = rng.uniform(size=num_rows) < 1 / (1 + np.exp(-logit))
    tags = ["\x03".join(str(t) for t in {i % NUM_CATES, (i + 2) % NUM_CATES}) for i in item]
    return pa.table(
        {
            "row": np.arange(num_rows),
            "user_id": user,
            "item_id": item,
            "tags": tags,
            "price": price.astype(np.float32),
            "click__item_id": [";".join(map(str, h)) for h in history],
            "click__price": [";".join(f"{i / NUM_ITEMS:.3f}" for i in h) for h in history],
            "clk": label.astype(np.int64),
        }
    )
