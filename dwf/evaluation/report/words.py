"""Words that explain a report's tables; the same in Markdown and on the page."""

from dwf.evaluation.measure import DRAWN_IN, HALF_WAY, NEAR_COPY

LEGEND = (
    (
        "good and novel",
        "share of networks as accurate as the originals and no copies of them [95 % interval]; the "
        "ceiling: held-out networks",
    ),
    ("mark", "what a set is: copying, averaging, noise, generalising, or undecided between them"),
    (
        "distance, behaviour, units",
        "to the nearest training network, by weights, answers, hidden units: 0 a copy, 1 "
        "independent",
    ),
    ("rows", "generated networks are highlighted; for others below a line nothing was learnt"),
)
"""Legend above the main table: a word, and what it means."""
MARKS_TEXT = (
    "What a set is, by the first rule that holds; clearly means by more than 1.96 standard errors. "
    "Published "
    "generators of weights were found to return replicas or interpolations of their training "
    "networks, and to do no better than noise (Zeng et al., arXiv 2506.07998)."
)
MARK_RULES = (
    "Copying: most (more than 60 %) of its networks are copies. A copy is "
    f"below {NEAR_COPY} of the training networks' own median in weights, behaviour or the units of "
    f"a layer, or below {HALF_WAY} and no average; and below the limit of that test, so that no "
    "copy is novel.",
    "Averaging: most are averages, drawn in to the mean of the training networks: nearer than "
    f"{DRAWN_IN} of the median of these networks' own distances from it (an average of two: 0.71).",
    "Noise: most are neither, and they are not clearly more accurate than a Gaussian, or than a "
    "baseline at their distance or further out: nothing had to be learnt for them.",
    "Generalising: a share of good and novel networks clearly above that of every baseline, at a "
    "dispersion of 0.7 or more.",
    "Undecided: what is left, and mixtures, in which neither copies, nor averages, nor the others "
    "are most.",
)
PROFILE_TEXT = (
    "How the rows fare under other limits. Good at 1, 1.5, 2, 3: share of networks that are "
    "accurate (mean minus two standard deviations) and at least so far by weights from the "
    "training networks, in these networks' own median distance from each other. Above a bar: share "
    "of networks that pass the tests of novelty and are at least as accurate as that bar, of the "
    "training networks' mean and standard deviation, or the fixed one. Disagreement: share of "
    "images that a network answers otherwise than the training network at its distance, the mean, "
    "in brackets that of training networks with the nearest other one. Effective rank: over how "
    "many principal directions of the training networks a set spreads (exponential of the entropy "
    "of its variances), in brackets that of as many training networks."
)
FIT_TEXT = (
    "What generators make of networks that they learnt from and of held-out ones (of validation: "
    "not those that a report on test networks scores). The training loss is the mean over the "
    "batches before the weights that were kept were validated, under the weights of each of these "
    "steps; the held-out one is that of the kept weights, their moving average where there is one. "
    "No error of either is known. The likelihood is the log "
    "density in nats per number of a network, mean +- standard deviation over n networks of each; "
    "means are equal where they differ by at most 1.96 standard errors. A generator that has "
    "learnt its training networks by heart in part has a higher loss of held-out ones (a "
    "difference above 0), and finds them clearly less likely (below 0)."
)
