"""A run on one page: what lies in its folder, put together for a person to read."""
