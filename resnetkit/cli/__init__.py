"""One small file a verb: parse, one library call, print. Torch is imported only when a verb runs."""
