"""Speed: the contenders, the literal formulation they are compared with, and the clock."""
