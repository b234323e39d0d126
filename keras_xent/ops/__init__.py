"""Pure functions on tensors: all the mathematics, no class and no state."""

from keras_xent.ops.brier import brier_score
from keras_xent.ops.contrastive import (
    info_nce,
    sigmoid_contrastive,
    supervised_contrastive,
)
from keras_xent.ops.correlation import (
    pearson_correlation,
    pearson_loss,
    spearman_correlation,
    spearman_loss,
)
from keras_xent.ops.crossentropy import (
    softmax_crossentropy,
    sparse_softmax_crossentropy,
)
from keras_xent.ops.distance import (
    pairwise_cosine,
    pairwise_euclidean,
    pairwise_squared_euclidean,
)
from keras_xent.ops.divergence import (
    jensen_shannon,
    kl_divergence,
    symmetric_kl,
)
from keras_xent.ops.entropy import entropy
from keras_xent.ops.hinge import pair_hinge, softplus_hinge, symmetric_kl_hinge
from keras_xent.ops.linear import linear_softmax_crossentropy
from keras_xent.ops.multi_similarity import multi_similarity
from keras_xent.ops.pairwise_divergence import (
    pairwise_kl,
    pairwise_symmetric_kl,
)
from keras_xent.ops.prototypes import prototypical_crossentropy
from keras_xent.ops.rank import average_rank, soft_rank
from keras_xent.ops.sampled import nce_loss, sampled_softmax_crossentropy
from keras_xent.ops.sampling import (
    log_uniform_sample,
    uniform_sample,
    unigram_sample,
)
from keras_xent.ops.sigmoid import sigmoid_crossentropy
from keras_xent.ops.temperature import fit_temperature
from keras_xent.ops.triplet import triplet_hinge

__all__ = [
    "average_rank",
    "brier_score",
    "entropy",
    "fit_temperature",
    "info_nce",
    "jensen_shannon",
    "kl_divergence",
    "linear_softmax_crossentropy",
    "log_uniform_sample",
    "multi_similarity",
    "nce_loss",
    "pair_hinge",
    "pairwise_cosine",
    "pairwise_euclidean",
    "pairwise_kl",
    "pairwise_squared_euclidean",
    "pairwise_symmetric_kl",
    "pearson_correlation",
    "pearson_loss",
    "prototypical_crossentropy",
    "sampled_softmax_crossentropy",
    "sigmoid_contrastive",
    "sigmoid_crossentropy",
    "soft_rank",
    "softmax_crossentropy",
    "softplus_hinge",
    "sparse_softmax_crossentropy",
    "spearman_correlation",
    "spearman_loss",
    "supervised_contrastive",
    "symmetric_kl",
    "symmetric_kl_hinge",
    "triplet_hinge",
    "uniform_sample",
    "unigram_sample",
]
