"""Streams of Kafka messages as an input."""
