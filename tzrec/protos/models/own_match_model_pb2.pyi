from tzrec.protos import simi_pb2 as _simi_pb2
from tzrec.protos import module_pb2 as _module_pb2
from tzrec.protos import tower_pb2 as _tower_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MatchNegatives(_message.Message):
    __slots__ = ("logq_correction", "mask_accidental_hits", "in_batch_and_sampled", "item_id_feature", "frequency_entries", "frequency_decay")
    LOGQ_CORRECTION_FIELD_NUMBER: _ClassVar[int]
    MASK_ACCIDENTAL_HITS_FIELD_NUMBER: _ClassVar[int]
    IN_BATCH_AND_SAMPLED_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FEATURE_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_DECAY_FIELD_NUMBER: _ClassVar[int]
    logq_correction: bool
    mask_accidental_hits: bool
    in_batch_and_sampled: bool
    item_id_feature: str
    frequency_entries: int
    frequency_decay: float
    def __init__(self, logq_correction: _Optional[bool] = ..., mask_accidental_hits: _Optional[bool] = ..., in_batch_and_sampled: _Optional[bool] = ..., item_id_feature: _Optional[str] = ..., frequency_entries: _Optional[int] = ..., frequency_decay: _Optional[float] = ...) -> None: ...

class SequenceUserTower(_message.Message):
    __slots__ = ("input", "history_input", "max_seq_len", "num_layers", "num_heads", "ffn_dim", "dropout", "mlp", "latest_first")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_INPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQ_LEN_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    FFN_DIM_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    MLP_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    input: str
    history_input: str
    max_seq_len: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    dropout: float
    mlp: _module_pb2.MLP
    latest_first: bool
    def __init__(self, input: _Optional[str] = ..., history_input: _Optional[str] = ..., max_seq_len: _Optional[int] = ..., num_layers: _Optional[int] = ..., num_heads: _Optional[int] = ..., ffn_dim: _Optional[int] = ..., dropout: _Optional[float] = ..., mlp: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., latest_first: _Optional[bool] = ...) -> None: ...

class SequenceTwoTower(_message.Message):
    __slots__ = ("user_tower", "item_tower", "output_dim", "similarity", "temperature", "in_batch_negative", "all_positions", "negatives")
    USER_TOWER_FIELD_NUMBER: _ClassVar[int]
    ITEM_TOWER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DIM_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    IN_BATCH_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    ALL_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVES_FIELD_NUMBER: _ClassVar[int]
    user_tower: SequenceUserTower
    item_tower: _tower_pb2.Tower
    output_dim: int
    similarity: _simi_pb2.Similarity
    temperature: float
    in_batch_negative: bool
    all_positions: bool
    negatives: MatchNegatives
    def __init__(self, user_tower: _Optional[_Union[SequenceUserTower, _Mapping]] = ..., item_tower: _Optional[_Union[_tower_pb2.Tower, _Mapping]] = ..., output_dim: _Optional[int] = ..., similarity: _Optional[_Union[_simi_pb2.Similarity, str]] = ..., temperature: _Optional[float] = ..., in_batch_negative: _Optional[bool] = ..., all_positions: _Optional[bool] = ..., negatives: _Optional[_Union[MatchNegatives, _Mapping]] = ...) -> None: ...
