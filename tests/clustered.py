"""Values of prompts for hypothesis, and what tests do with them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

PROMPTS = st.lists(st.lists(st.sampled_from([0, 1]), min_size=1, max_size=6), min_size=2, max_size=12)
PAIRS = st.lists(st.lists(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]), min_size=1, max_size=6), min_size=2, max_size=12)
REALS = st.lists(st.lists(st.integers(-50, 50).map(lambda v: v / 7), min_size=1, max_size=4), min_size=2, max_size=10)


def flat(prompts):
    """All values, and the label of each."""
    return [v for prompt in prompts for v in prompt], [f"p{i}" for i, prompt in enumerate(prompts) for _ in prompt]


def shuffled(values, labels, seed):
    """The same in another order, with other labels."""
    order = np.random.default_rng(seed).permutation(len(values))
    return [values[i] for i in order], [("renamed", labels[i]) for i in order]


def limits(found):
    return found.low, found.high
