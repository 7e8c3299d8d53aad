"""Every head is a scikit-learn classifier or regressor, by scikit-learn's own checks."""

from __future__ import annotations

from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.heads.attentive import AttentiveHead
from featx.heads.boosted import XGBoostHead, XGBoostRegressor
from featx.heads.dense import ConvHead, DenseHead, DenseRegressor
from featx.heads.lda import LDAHead
from featx.heads.linear import LogisticHead, SVMHead
from featx.heads.logistic_cv import LogisticHeadCV
from featx.heads.neighbors import CentroidHead, KNNHead, KNNRegressor
from featx.heads.ridge import RidgeHead, RidgeRegressor

HEADS = [
    LogisticHead(tol=1e-9),
    LogisticHeadCV(Cs=3, cv=2, tol=1e-9),
    SVMHead(tol=1e-9),
    RidgeHead(),
    RidgeHead(alpha=(0.1, 10)),
    RidgeRegressor(),
    RidgeRegressor(alpha=(0.1, 10)),
    LDAHead(),
    LDAHead(0.3),
    CentroidHead(),
    CentroidHead(metric="euclidean"),
    KNNHead(k=3),
    AttentiveHead(2, lr=1e-1, epochs=60),
    DenseHead(hidden=16, lr=1e-2, epochs=60),
    DenseRegressor(hidden=16, lr=1e-2, epochs=60),
    ConvHead("conv8 relu max flat 16 relu", lr=1e-2, epochs=30),
    KNNRegressor(k=3),
    XGBoostHead(n_estimators=5, components=2),
    XGBoostRegressor(n_estimators=5, components=2),
]


def expected_failures(head):
    if isinstance(head, DenseHead | DenseRegressor | ConvHead | AttentiveHead):
        rounding = "networks are trained in float32, and sums of weighted and of repeated rows round differently"
        return {"check_sample_weight_equivalence_on_dense_data": rounding}
    if isinstance(head, RidgeRegressor) and head.alpha != 1.0:
        copies = "leaving out one of several equal rows leaves the others"
        return {"check_sample_weight_equivalence_on_dense_data": copies}
    if isinstance(head, KNNHead):
        none = "no vote is a probability of 0, and the check wants more of an array; of lists of arrays it does not"
        few = "a weight moves no vote of three neighbours that are all of the other class"
        return {
            "check_classifiers_multilabel_output_format_predict_proba": none,
            "check_class_weight_classifiers": few,
        }
    return {}


@parametrize_with_checks(HEADS, expected_failed_checks=expected_failures, xfail_strict=True)
def test_head_follows_scikit_learn(estimator, check):
    check(estimator)
