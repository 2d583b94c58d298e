"""How fast, beside its peers: separate processes that take turns, and what may be concluded from their times."""
