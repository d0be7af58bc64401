import torch
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection

from tzrec.ops.cpu.collections import CpuEmbeddingBagCollection, CpuEmbeddingCollection
from tzrec.optim.sparse_parameters import split_sparse_parameters


def model():
    bags = [
        EmbeddingBagConfig(name=n, num_embeddings=3, embedding_dim=4, feature_names=[n])
        for n in ("a", "b")
    ]
    rows = [
        EmbeddingConfig(name=n, num_embeddings=3, embedding_dim=4, feature_names=[n])
        for n in ("c", "d")
    ]
    bags[1].trainable = False
    rows[0].trainable = False
    rows[1].trainable = True
    root = nn.Module()
    root.inner = nn.Module()
    root.inner.ebc = EmbeddingBagCollection(tables=bags, device=torch.device("cpu"))
    root.ec = EmbeddingCollection(tables=rows, device=torch.device("cpu"))
    root.linear = nn.Linear(2, 2)
    root.bag = nn.EmbeddingBag(2, 2)  # not a TorchRec collection: dense
    return root


def names(root, parameters):
    by_id = {id(p): name for name, p in root.named_parameters()}
    return {by_id[id(p)] for p in parameters}


EXPECTED = (
    {"inner.ebc.embedding_bags.a.weight", "ec.embeddings.d.weight"},
    {"inner.ebc.embedding_bags.b.weight", "ec.embeddings.c.weight"},
)


def test_tables_by_the_flag_of_their_config():
    root = model()
    trainable, frozen = split_sparse_parameters(root)
    assert (names(root, trainable), names(root, frozen)) == EXPECTED


def test_our_collections_answer_the_same():
    root = model()
    root.inner.ebc = CpuEmbeddingBagCollection(root.inner.ebc)
    root.ec = CpuEmbeddingCollection(root.ec)
    trainable, frozen = split_sparse_parameters(root)
    assert (names(root, trainable), names(root, frozen)) == EXPECTED


def test_a_collection_used_twice_counts_once():
    root = model()
    root.again = root.inner
    trainable, frozen = split_sparse_parameters(root)
    assert len(trainable) == len(frozen) == 2
