"""Client of the saymask serving stack: ask in plain words, get the mask."""
