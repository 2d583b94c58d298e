"""What a residual network is. `spec`, `variants` and `stages` are arithmetic and import no torch."""
