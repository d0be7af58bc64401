"""What a feature is: its columns, its size, its embedding. One file a type."""
