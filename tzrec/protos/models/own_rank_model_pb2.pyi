from tzrec.protos import module_pb2 as _module_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinalMLP(_message.Message):
    __slots__ = ("mlp1", "mlp2", "feature_selection", "num_heads")
    MLP1_FIELD_NUMBER: _ClassVar[int]
    MLP2_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SELECTION_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    mlp1: _module_pb2.MLP
    mlp2: _module_pb2.MLP
    feature_selection: _module_pb2.MLP
    num_heads: int
    def __init__(self, mlp1: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., mlp2: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., feature_selection: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., num_heads: _Optional[int] = ...) -> None: ...

class AutoInt(_message.Message):
    __slots__ = ("num_layers", "num_heads", "attention_dim", "use_residual", "deep", "final")
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_DIM_FIELD_NUMBER: _ClassVar[int]
    USE_RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    DEEP_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    num_layers: int
    num_heads: int
    attention_dim: int
    use_residual: bool
    deep: _module_pb2.MLP
    final: _module_pb2.MLP
    def __init__(self, num_layers: _Optional[int] = ..., num_heads: _Optional[int] = ..., attention_dim: _Optional[int] = ..., use_residual: _Optional[bool] = ..., deep: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., final: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ...) -> None: ...

class GatedCross(_message.Message):
    __slots__ = ("cross_num",)
    CROSS_NUM_FIELD_NUMBER: _ClassVar[int]
    cross_num: int
    def __init__(self, cross_num: _Optional[int] = ...) -> None: ...

class GDCN(_message.Message):
    __slots__ = ("cross", "deep", "stacked", "final")
    CROSS_FIELD_NUMBER: _ClassVar[int]
    DEEP_FIELD_NUMBER: _ClassVar[int]
    STACKED_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    cross: GatedCross
    deep: _module_pb2.MLP
    stacked: bool
    final: _module_pb2.MLP
    def __init__(self, cross: _Optional[_Union[GatedCross, _Mapping]] = ..., deep: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., stacked: _Optional[bool] = ..., final: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ...) -> None: ...

class TransActTower(_message.Message):
    __slots__ = ("input", "num_layers", "num_heads", "feedforward_dim", "dropout_ratio", "num_latest", "max_seq_length", "latest_first")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
    FEEDFORWARD_DIM_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_RATIO_FIELD_NUMBER: _ClassVar[int]
    NUM_LATEST_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQ_LENGTH_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    input: str
    num_layers: int
    num_heads: int
    feedforward_dim: int
    dropout_ratio: float
    num_latest: int
    max_seq_length: int
    latest_first: bool
    def __init__(self, input: _Optional[str] = ..., num_layers: _Optional[int] = ..., num_heads: _Optional[int] = ..., feedforward_dim: _Optional[int] = ..., dropout_ratio: _Optional[float] = ..., num_latest: _Optional[int] = ..., max_seq_length: _Optional[int] = ..., latest_first: _Optional[bool] = ...) -> None: ...

class TransAct(_message.Message):
    __slots__ = ("transact_towers", "cross", "final")
    TRANSACT_TOWERS_FIELD_NUMBER: _ClassVar[int]
    CROSS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    transact_towers: _containers.RepeatedCompositeFieldContainer[TransActTower]
    cross: _module_pb2.CrossV2
    final: _module_pb2.MLP
    def __init__(self, transact_towers: _Optional[_Iterable[_Union[TransActTower, _Mapping]]] = ..., cross: _Optional[_Union[_module_pb2.CrossV2, _Mapping]] = ..., final: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ...) -> None: ...
