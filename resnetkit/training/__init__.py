"""How numbers are found."""
