"""Processes and placement: process group, sharding plan, TorchRec's model-parallel wrapper."""
