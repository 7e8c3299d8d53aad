"""Tests of other files once more on the second of two pretended GPUs; nothing may land on the first."""
# ruff: noqa: F401 - they are collected here by their names

import pretended_gpu
import pytest
import test_engines
import test_heads_training
import torch
from test_dense import (
    test_batch_norm_before_global_pooling,
    test_early_stopping_keeps_the_best_epoch,
    test_history_has_both_splits_and_ends_with_the_validation_scores_of_the_fitted_head,
    test_partial_fit_goes_on_where_it_stands,
    test_plateau_lowers_the_rate_to_its_floor,
    test_weights_decide_between_contradicting_rows,
)
from test_engines import (
    test_a_tapped_convolution_keeps_its_own_output_and_the_rest_is_folded,
    test_an_engine_leaves_the_backbone_as_it_was,
    test_any_number_of_images_gives_that_many_rows,
    test_nan_comes_out_as_nan,
    test_the_last_batch_is_padded_so_that_a_resumed_run_is_bit_equal,
    test_unpadded_requests_take_the_next_power_of_two_and_the_tier_holds,
    test_whatever_the_process_has_set_fp32_is_fp32,
)
from test_heads_training import (
    test_a_run_goes_on_from_a_checkpoint_in_an_epoch_as_if_nothing_had_happened,
    test_an_update_of_several_batches_is_that_of_one_large_batch,
    test_the_tensors_of_the_best_epoch_are_kept_where_that_is_asked_for,
)
from test_logistic import (
    test_coefficients_agree_with_scikit_learns_at_a_tight_tolerance,
    test_few_iterations_suffice,
    test_groups_do_not_straddle_folds,
    test_more_features_than_rows,
    test_optimum_is_at_or_below_scikit_learns,
    test_products_of_low_precision_that_the_process_allows_are_not_used,
    test_support_vectors_agree_with_liblinear,
    test_validation_rows_choose_and_are_not_fitted_on,
)
from test_neighbors import (
    test_a_training_row_left_out_is_a_fit_without_it,
    test_cosine_means_ignore_the_length_of_rows,
    test_dino_votes_by_the_exponential_of_similarity,
    test_more_neighbours_than_rows_are_all_rows,
    test_nearest_mean_is_scikit_learns,
    test_neighbours_are_those_of_brute_force,
    test_neighbours_do_not_depend_on_how_rows_come_in_tiles,
    test_neighbours_of_many_queries_are_those_of_a_few_at_a_time,
    test_uniform_votes_are_scikit_learns,
    test_weights_count_rows,
)
from test_ridge import (
    test_leave_one_out_is_exact,
    test_of_equally_good_penalties_the_larger_is_taken,
    test_solution_is_scikit_learns,
    test_squared_error_chooses_as_scikit_learn_does,
)

from featx.devices import arithmetic


@pytest.fixture(autouse=True)
def second_gpu(monkeypatch, request):
    """Let ``auto`` be the second GPU, and engines and networks of the tests above be there."""
    on_cpu = test_heads_training.network, test_heads_training.Rows.batch

    def eager(backbone, recipes, **options):
        options = {"batch_size": 4} | options  # the size that is tried first on a GPU takes a CPU long
        return test_engines.open_engine(backbone, recipes, engine="eager", device="cuda:1", **options)

    def batch(rows, chosen):
        return [tensor.to("cuda:1") for tensor in on_cpu[1](rows, chosen)]

    with pretended_gpu.pretended(2) as used:
        monkeypatch.setattr("featx.devices.automatic", lambda *_: "cuda:1")
        monkeypatch.setattr(test_engines, "eager", eager)
        monkeypatch.setattr(test_heads_training, "network", lambda: on_cpu[0]().to("cuda:1"))
        monkeypatch.setattr(test_heads_training.Rows, "batch", batch)
        if request.function.__module__ == "test_heads_training":  # a trainer's owner sets its arithmetic
            with arithmetic(torch.device("cuda:1"), "fp32"):
                yield used
        else:
            yield used
    assert used[1]
    assert not used[0]
    assert not used["products in whatever precision"]
