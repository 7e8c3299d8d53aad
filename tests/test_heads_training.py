"""The one training loop: exact from any step on, whatever the size of its batches, and the best epoch kept."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featx.heads.training import TrainConfig, Trainer, TrainState, make_optimizer

CONFIG = TrainConfig(
    optimizer="adamw", lr=1e-2, weight_decay=0.01, momentum=0.9, eps=None, epochs=3, batch_size=8, schedule="cosine",
    factor=0.1, plateau_patience=2, min_lr=0.0, early_stopping=False, patience=3, min_delta=0.0, monitor="loss",
)  # fmt: skip


class Rows:
    """40 rows of three classes, five updates an epoch, each from so many batches."""

    n_rows, steps_per_epoch = 40, 5

    def __init__(self, parts=1):
        rng = np.random.default_rng(0)
        self.X, self.parts = torch.from_numpy(rng.standard_normal((40, 6), np.float32)), parts
        self.y = torch.from_numpy(rng.integers(0, 3, 40))

    def steps(self, epoch, first=0):
        for rows in np.split(np.random.default_rng(epoch).permutation(40), 5)[first:]:
            yield len(rows), [self.batch(part) for part in np.array_split(rows, self.parts)]

    def batch(self, rows):
        return self.X[rows], self.y[rows], torch.ones(len(rows))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def test_a_run_goes_on_from_a_checkpoint_in_an_epoch_as_if_nothing_had_happened():
    whole = Trainer(network(), Rows(), CONFIG, seed=1, every_step=True)
    whole.run()
    first, kept = Trainer(network(), Rows(), CONFIG, seed=1, every_step=True), []

    def keep():
        parts = first.network.state_dict(), first.optimizer.state_dict(), vars(first.state)
        kept.append(copy.deepcopy(parts))

    first.run(checkpoint=keep, checkpoint_seconds=0)
    weights, moments, state = kept[7]  # in the second epoch
    second = Trainer(network(), Rows(), CONFIG, seed=1, every_step=True)
    second.network.load_state_dict(weights)
    second.optimizer.load_state_dict(moments)
    second.state = TrainState.from_json(state)
    second.run()

    assert state["step_in_epoch"] > 0
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name])
    assert second.state.history == whole.state.history
    assert second.state.iterations == whole.state.iterations


def test_an_update_of_several_batches_is_that_of_one_large_batch():
    ends = []
    for parts in (1, 4):
        plain = network().requires_grad_(True)
        plain[2].p = 0.0
        trainer = Trainer(plain, Rows(parts), CONFIG, seed=0)
        trainer.run()
        ends.append((trainer.state.history["loss"], plain[0].weight.detach()))

    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5)
    torch.testing.assert_close(ends[0][1], ends[1][1], rtol=1e-4, atol=1e-5)


def test_groups_of_parameters_have_multiples_of_the_rate_and_zero_leaves_them_alone():
    plain = network()
    before = plain[0].weight.detach().clone()
    groups = [
        {"params": list(plain[0].parameters()), "weight_decay": 0.0, "multiplier": 0.0},
        {"params": list(plain[3].parameters()), "weight_decay": 0.0, "multiplier": 2.0},
    ]
    trainer = Trainer(plain, Rows(), CONFIG, seed=0, optimizer=make_optimizer(None, CONFIG, groups))
    trainer.run()

    assert torch.equal(plain[0].weight, before)
    assert trainer.state.history["lr"][0] == pytest.approx(CONFIG.rate(4 / 15))


def test_the_tensors_of_the_best_epoch_are_kept_where_that_is_asked_for():
    rows, seen, plain = Rows(), [], network()

    def validation():  # the labels turn, so that what was best at first is worse with every epoch
        seen.append(plain[0].weight.detach().clone())
        X, y, ones = rows.batch(np.arange(40))
        return [(X, (y + (len(seen) > 2)) % 3, ones)]

    config = TrainConfig(**vars(CONFIG) | {"monitor": "val_loss", "epochs": 6})
    trainer = Trainer(plain, rows, config, seed=0, validation=validation, keep_best=True)
    trainer.run()

    assert int(np.argmin(trainer.state.history["val_loss"])) == 1
    assert torch.equal(plain[0].weight, seen[1])


def test_training_leaves_the_random_numbers_of_the_process_alone():
    plain = network()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Trainer(plain, Rows(), CONFIG, seed=0).run()

    assert torch.equal(torch.rand(3), expected)
