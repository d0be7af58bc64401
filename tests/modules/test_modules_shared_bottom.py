"""What DBMTL and DC2VR share below their tasks."""

import torch

from tzrec.modules.shared_bottom import SharedBottom


def test_passes_on_what_nothing_changes():
    bottom, x = SharedBottom(5, 3), torch.randn(2, 5)
    assert bottom.output_dim() == 5
    assert all(found is x for found in bottom(x))
    assert not list(bottom.parameters())


def test_widths_and_order():
    mask_net = {"n_mask_blocks": 2, "mask_block": {"hidden_dim": 4}}
    layers = {"bottom_mlp": {"hidden_units": [7]}, "expert_mlp": {"hidden_units": [3]}}
    for fields, dim in (
        ({"mask_net": mask_net}, 8),
        ({"mask_net": mask_net, "bottom_mlp": layers["bottom_mlp"]}, 7),
        ({"mask_net": mask_net, **layers, "num_expert": 2}, 3),
    ):
        bottom = SharedBottom(5, 2, **fields)
        assert bottom.output_dim() == dim
        assert [found.shape for found in bottom(torch.randn(4, 5))] == [(4, dim)] * 2
