"""Tests of featx.heads.attentive: learned queries over maps, tokens and vectors side by side, from what is stored."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.datasets import load_digits

from featx.errors import OptionError
from featx.features import Features
from featx.heads.attentive import AttentiveHead
from featx.heads.inputs import read_training
from featx.heads.networks import TableBatches
from featx.heads.state import export_state, restore_state
from featx.heads.training import Trainer, forked_seeds

X, Y = load_digits(return_X_y=True)
MAPS = np.float32(X.reshape(-1, 1, 8, 8) / 16)
FEW = {"queries": 3, "lr": 1e-2, "epochs": 3, "random_state": 0}


def tokens_of(maps):
    """A frozen backbone: sixteen tokens of twelve values."""
    with forked_seeds("cpu", 1), torch.inference_mode():
        conv = torch.nn.Conv2d(1, 12, 3, stride=2, padding=1)
        return conv(torch.from_numpy(maps)).relu().flatten(2).transpose(1, 2).numpy()


TOKENS = tokens_of(MAPS)


def test_each_query_averages_tokens_by_its_own_weights():
    head = AttentiveHead(**FEW).fit(TOKENS, Y)
    arrays = iter(head.state_.values())
    scale, shift, mean, var, queries, coef, intercept = arrays
    rows = (TOKENS - mean) / np.sqrt(var + 1e-5) * scale + shift
    powers = np.exp(rows @ queries.T / np.sqrt(12))
    averages = np.einsum("ntq,ntc->nqc", powers / powers.sum(axis=1, keepdims=True), rows)

    np.testing.assert_allclose(
        head.decision_function(TOKENS), averages.reshape(len(Y), -1) @ coef.T + intercept, atol=1e-4
    )
    assert np.abs(queries).min() > 0


class InTheLoop(TableBatches):
    """Batches whose tokens the backbone makes anew, from the images at the numbers that stand in the rows."""

    def steps(self, epoch, first=0):
        for n, ((rows, *rest),) in super().steps(epoch, first):
            yield n, [(torch.from_numpy(tokens_of(MAPS[rows[:, 0].long().numpy()])), *rest)]


def test_stored_tokens_teach_as_the_backbone_in_the_loop_does():
    cached = AttentiveHead(**FEW).fit(Features.from_arrays(TOKENS, Y))

    looped = AttentiveHead(**FEW)
    training = read_training(looped, np.arange(len(Y), dtype=np.float32)[:, None], Y)
    looped.row_shape_, looped.n_features_in_ = TOKENS.shape[1:], 16 * 12
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    with forked_seeds("cpu", seed):
        network = looped.network_module(fitted=False)
    Trainer(network, InTheLoop(training, 100, seed, "cpu"), looped._config(), seed=seed).run()
    looped.keep(network)

    for name, array in cached.state_.items():
        np.testing.assert_allclose(looped.state_[name], array, atol=2e-4)


@pytest.mark.parametrize("rows", [MAPS, TOKENS, TOKENS.astype(np.float16)], ids=["maps", "tokens", "float16"])
def test_a_head_is_the_same_after_a_file(rows):
    table = Features.from_arrays(rows, Y)
    head = AttentiveHead(**FEW).fit(table)
    meta, arrays = export_state(head)
    again = restore_state(json.loads(json.dumps(meta)), load(save(arrays)))

    np.testing.assert_array_equal(again.predict_proba(table), head.predict_proba(table))


def test_vectors_side_by_side_are_tokens():
    beside = AttentiveHead(**FEW, parts=16).fit(TOKENS.reshape(len(Y), -1), Y)
    stacked = AttentiveHead(**FEW).fit(TOKENS, Y)

    np.testing.assert_array_equal(beside.state_["2.weight"], stacked.state_["2.weight"])


def test_a_table_larger_than_memory_is_streamed():
    table = Features.from_arrays(TOKENS, Y)
    head = AttentiveHead(queries=3, lr=1e-2, epochs=30, random_state=0).fit(table, memory=TOKENS.nbytes)

    assert head.score(TOKENS, Y) > 0.8


def test_parts_of_other_widths_are_refused():
    with pytest.raises(OptionError, match="not 7 vectors of one width"):
        AttentiveHead(parts=7).fit(TOKENS.reshape(len(Y), -1), Y)
