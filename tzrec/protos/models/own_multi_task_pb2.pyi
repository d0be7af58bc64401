from tzrec.protos import module_pb2 as _module_pb2
from tzrec.protos import tower_pb2 as _tower_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ESMM(_message.Message):
    __slots__ = ("ctr_tower", "cvr_tower")
    CTR_TOWER_FIELD_NUMBER: _ClassVar[int]
    CVR_TOWER_FIELD_NUMBER: _ClassVar[int]
    ctr_tower: _tower_pb2.TaskTower
    cvr_tower: _tower_pb2.TaskTower
    def __init__(self, ctr_tower: _Optional[_Union[_tower_pb2.TaskTower, _Mapping]] = ..., cvr_tower: _Optional[_Union[_tower_pb2.TaskTower, _Mapping]] = ...) -> None: ...

class STEM(_message.Message):
    __slots__ = ("expert_mlp", "gate_mlp", "num_shared_expert", "num_task_expert", "task_towers")
    EXPERT_MLP_FIELD_NUMBER: _ClassVar[int]
    GATE_MLP_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARED_EXPERT_FIELD_NUMBER: _ClassVar[int]
    NUM_TASK_EXPERT_FIELD_NUMBER: _ClassVar[int]
    TASK_TOWERS_FIELD_NUMBER: _ClassVar[int]
    expert_mlp: _module_pb2.MLP
    gate_mlp: _module_pb2.MLP
    num_shared_expert: int
    num_task_expert: int
    task_towers: _containers.RepeatedCompositeFieldContainer[_tower_pb2.TaskTower]
    def __init__(self, expert_mlp: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., gate_mlp: _Optional[_Union[_module_pb2.MLP, _Mapping]] = ..., num_shared_expert: _Optional[int] = ..., num_task_expert: _Optional[int] = ..., task_towers: _Optional[_Iterable[_Union[_tower_pb2.TaskTower, _Mapping]]] = ...) -> None: ...
