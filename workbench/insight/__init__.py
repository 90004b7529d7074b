"""What the tables mean: polars in, polars out. No network, no clock."""
