"""Weights on their way: packed from a run, described, published, downloaded, verified, converted. Only the command line imports this."""
