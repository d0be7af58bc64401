"""Features from config text."""

from google.protobuf import text_format

from tzrec.features.feature import create_features
from tzrec.protos.feature_pb2 import FeatureConfig


def config(text):
    return text_format.Parse(text, FeatureConfig())


def feature(text, **options):
    (made,) = create_features([config(text)], **options)
    return made


def id_feature(text="", *, buckets="num_buckets: 10", name="cat", dim=4):
    return feature(
        f'id_feature {{ feature_name: "{name}" expression: "item:{name}" embedding_dim: {dim} '
        f"{buckets} {text} }}"
    )


def raw_feature(text="", *, name="price"):
    return feature(f'raw_feature {{ feature_name: "{name}" expression: "item:{name}" {text} }}')
