"""Scores of users and candidates against plain products, their gradients against autograd."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tzrec.modules.match_scores import ABSENT, ItemRows, match_scores

R, N, D = 5, 4, 3
HARD = [(1, 0), (1, 1), (4, 0)]


def make(in_batch, hard, seed=0):
    rng = np.random.default_rng(seed)
    num_hard = len(HARD) if hard else 0
    users = rng.normal(size=(R, D)).astype(np.float32)
    items = rng.normal(size=(R + N + num_hard, D)).astype(np.float32)
    at = torch.tensor(HARD) if hard else None
    rows = ItemRows(
        R,
        hard_rows=None if at is None else at[:, 0],
        hard_columns=None if at is None else at[:, 1],
        in_batch=in_batch,
    )
    return users, items, rows


def oracle(users, items, in_batch, hard):
    """One product at a time."""
    shared = list(range(R + N)) if in_batch else None
    table = []
    for r in range(R):
        columns = shared or [r, *range(R, R + N)]
        row = [users[r] @ items[c] for c in columns]
        own = {c: users[r] @ items[R + N + h] for h, (at, c) in enumerate(HARD) if hard and at == r}
        table.append(row + [own.get(c, ABSENT) for c in range(2)] * hard)
    return np.array(table)


@pytest.mark.parametrize(("in_batch", "hard"), itertools.product((False, True), repeat=2))
def test_scores(in_batch, hard):
    users, items, rows = make(in_batch, hard)
    found = match_scores(torch.from_numpy(users), torch.from_numpy(items), rows)
    np.testing.assert_allclose(found, oracle(users, items, in_batch, hard), rtol=1e-5)
    assert rows.targets(found.device).tolist() == (list(range(R)) if in_batch else [0] * R)


@pytest.mark.parametrize(("in_batch", "hard"), itertools.product((False, True), repeat=2))
def test_gradients(in_batch, hard):
    users, items, rows = make(in_batch, hard)

    def gradients(score):
        u, i = (torch.from_numpy(x).clone().requires_grad_() for x in (users, items))
        scores = score(u, i)
        (F.cross_entropy(scores, rows.targets(u.device)) + scores[:, 1].sum()).backward()
        return u.grad, i.grad

    def plain(u, i):
        first = [] if in_batch else [(u * i[:R]).sum(1, keepdim=True)]
        parts = [*first, u @ i[rows.first_shared : R + N].T]
        if hard:
            at = tuple(torch.tensor(HARD).T)
            dots = (u[at[0]] * i[R + N :]).sum(1)
            parts.append(torch.full((R, 2), ABSENT).index_put(at, dots))
        return torch.cat(parts, 1)

    for found, expected in zip(
        gradients(lambda u, i: match_scores(u, i, rows)), gradients(plain), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("in_batch", [False, True])
def test_accidental_hits_are_absent(in_batch):
    users, items, rows = make(in_batch, True)
    # Row 0 and 1 have one item, a shared one and a hard one are row 4's; two are unknown.
    ids = torch.tensor([7, 7, 2, -1, 4, 4, 7, 9, -1, 8, 7, 4])
    plain = match_scores(torch.from_numpy(users), torch.from_numpy(items), rows)
    masked = match_scores(
        torch.from_numpy(users),
        torch.from_numpy(items),
        ItemRows(R, rows.hard_rows, rows.hard_columns, in_batch, ids=ids),
    )
    first = R if in_batch else 1
    gone = {(0, first + 1), (1, first + 1), (4, first), (1, first + N + 1), (4, first + N)}
    if in_batch:
        gone |= {(0, 1), (1, 0)}
    changed = {tuple(at) for at in (plain != masked).nonzero().tolist()}
    assert changed == gone
    assert all(masked[at] == ABSENT for at in gone)


def test_a_shared_item_may_be_no_negative_of_its_row():
    users, items, rows = make(False, False)
    own = torch.tensor([0, 1, 2, 3, 3])
    found = match_scores(
        torch.from_numpy(users), torch.from_numpy(items), ItemRows(R, own_shared=own)
    )
    plain = match_scores(torch.from_numpy(users), torch.from_numpy(items), rows)
    assert {tuple(at) for at in (plain != found).nonzero().tolist()} == {
        (r, 1 + int(c)) for r, c in enumerate(own)
    }


def test_an_absent_candidate_has_no_gradient():
    users, items, rows = make(False, True)
    u, i = (torch.from_numpy(x).requires_grad_() for x in (users, items))
    ids = torch.tensor([0, 1, 2, 3, 4] + [0] * N + [1, 1, 4])
    layout = ItemRows(R, rows.hard_rows, rows.hard_columns, ids=ids)
    scores = match_scores(u, i, layout)
    F.cross_entropy(scores[:1], torch.zeros(1, dtype=torch.int64)).backward()
    assert float(i.grad.abs().sum()) == 0  # row 0 has its positive only


def test_nothing_is_rounded_to_half_precision():
    users, items, rows = make(True, False)
    exact = match_scores(torch.from_numpy(users), torch.from_numpy(items), rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = match_scores(torch.from_numpy(users), torch.from_numpy(items), rows)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)


def test_more_rows_than_are_computed_at_once():
    users, items = torch.randn(700, D), torch.randn(700 + N, D)
    found = match_scores(users, items, ItemRows(700))
    expected = torch.cat([(users * items[:700]).sum(1, keepdim=True), users @ items[700:].T], 1)
    torch.testing.assert_close(found, expected)


def test_no_negatives_at_all():
    found = match_scores(torch.ones(2, 3), torch.ones(2, 3), ItemRows(2))
    assert found.tolist() == [[3.0], [3.0]]
