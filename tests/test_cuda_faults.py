"""The faults of the CUDA path, each with the tests that are red without its repair, or the steps that need a card.

They come from a review by reading; nothing of it had run on a card. The steps are those of `benchmarks.cuda_check`.
"""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from benchmarks.cuda_check import STEPS

TESTS = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault: its number, what was wrong, `module::test` that show it, and steps of the check on a card."""

    number: int
    was: str
    tests: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()


FAULTS = (
    Fault(
        1,
        "torch's word that CUDA is available was taken for a card that works",
        (
            "test_device::test_a_card_is_taken_only_after_a_test_kernel",
            "test_device::test_the_test_kernel_finds_a_device_that_computes_wrongly",
        ),
        (1,),
    ),
    Fault(
        2,
        "a driver that is too old looked like no card",
        (
            "test_device::test_a_driver_that_is_too_old_is_told_from_no_card",
            "test_device::test_a_driver_that_does_not_start_is_told_in_its_own_words",
        ),
    ),
    Fault(
        3,
        "a card that is full or busy at the start was neither told nor tried again",
        (
            "test_device::test_a_card_without_free_memory_is_full_and_torchs_own_cache_is_free",
            "test_local_backend::test_a_busy_card_is_tried_again_now_and_then_and_taken_when_it_is_free",
            "test_local_backend::test_doctor_says_why_a_card_is_not_used",
        ),
    ),
    Fault(
        4,
        "an error while the backend loads left a service that restores nothing until it is started again",
        (
            "test_system_api::test_a_backend_that_fails_to_open_is_told_in_health_and_opened_again",
            "test_local_backend::test_a_card_without_room_for_the_default_model_leaves_the_work_to_the_cpu",
            "test_local_backend::test_a_card_that_fails_at_the_default_model_is_tried_again_only_if_it_still_computes",
            "test_local_backend::test_what_fails_on_the_cpu_too_leaves_a_backend_that_answers_and_says_so",
        ),
    ),
    Fault(
        5,
        "out of memory was not known in the words of cuDNN and cuBLAS",
        ("test_device::test_out_of_memory_is_known_in_all_its_words",),
        (5,),
    ),
    Fault(
        6,
        "out of memory while a network is loaded blamed a good file, or failed the photo",
        (
            "test_device::test_loading_makes_room_once_and_blames_no_file",
            "test_models::test_out_of_memory_at_load_makes_room_then_is_named_and_no_file_is_blamed",
            "test_models::test_out_of_memory_while_a_file_is_read_does_not_call_it_unreadable",
            "test_faces_models::test_out_of_memory_at_load_makes_room_and_never_blames_a_good_file",
        ),
    ),
    Fault(
        7,
        "out of memory in the detector was an internal error",
        (
            "test_faces_networks::"
            "test_out_of_memory_while_looking_halves_the_copy_remembers_it_and_ends_in_a_named_error",
        ),
    ),
    Fault(
        8,
        "what memory had decided was forgotten at the next photo, and the batch was never halved",
        (
            "test_host_engine::test_out_of_memory_halves_the_batch_then_the_tile_and_the_engine_remembers",
            "test_host_engine::test_the_next_photo_is_cut_as_the_last_one_that_fitted",
            "test_faces_pipeline::test_a_smaller_batch_is_remembered_and_a_full_one_is_halved_even_for_one_face",
            "test_faces_pipeline::test_a_parser_that_runs_out_of_memory_halves_the_batch_too",
        ),
        (5,),
    ),
    Fault(
        9,
        "after a fault in a kernel every later photo of the process failed",
        (
            "test_device::test_a_device_that_computes_no_more_is_lost_and_a_working_one_is_not",
            "test_local_backend::test_a_card_that_is_lost_ends_the_run_with_that_and_other_errors_pass",
            "test_worker::test_a_lost_card_gives_its_photo_back_with_a_try_burned_and_ends_the_process",
        ),
        (7,),
    ),
    Fault(
        10,
        "a card that is lost at every photo would have ended the service for good",
        (
            "test_supervisor::test_a_child_that_hung_or_lost_its_card_twice_is_told_to_do_without_it_and_why",
            "test_run::test_a_child_whose_card_failed_restores_on_the_cpu_whatever_device_says",
            "test_system_api::test_a_card_that_failed_twice_is_told_in_health_config_and_the_start_text",
        ),
    ),
    Fault(
        11,
        "cuDNN searched kernels: seconds for each new size, and other bytes from run to run",
        ("test_device::test_a_card_computes_in_a_repeatable_way_and_fp32_is_fp32",),
        (4, 8),
    ),
    Fault(
        12,
        "fp32, best and tiles done again were TF32",
        ("test_device::test_a_card_computes_in_a_repeatable_way_and_fp32_is_fp32",),
        (2,),
    ),
    Fault(
        13,
        "windows had a shape of their own for each photo, each with new plans",
        ("test_host_engine::test_all_windows_of_a_card_measure_multiples_of_32",),
        (3,),
    ),
    Fault(
        14,
        "tiles and batches followed the memory that was free at the moment",
        (
            "test_host_engine::test_tiles_follow_all_memory_of_a_card_not_what_is_free",
            "test_host_engine::test_small_windows_go_together_and_large_ones_alone",
            "test_faces_models::test_the_batch_of_a_card_follows_all_its_memory_and_is_remembered",
        ),
        (4,),
    ),
    Fault(
        15,
        "a face came out by the number of its neighbours, and each photo size was a new shape for the detector",
        (
            "test_faces_pipeline::"
            "test_a_batch_of_a_card_is_filled_up_so_that_a_face_has_always_the_same_company_in_number",
            "test_faces_networks::test_a_card_looks_at_few_shapes_and_sees_the_same_faces",
        ),
        (6,),
    ),
    Fault(
        16,
        "memory that torch keeps for later counted as taken",
        ("test_device::test_a_card_without_free_memory_is_full_and_torchs_own_cache_is_free",),
    ),
    Fault(
        17,
        "a card's memory was never given back to other programs",
        (
            "test_local_backend::test_a_card_without_work_gives_its_memory_back_once_and_a_cpu_never",
            "test_local_backend::test_released_networks_are_loaded_again_and_give_the_same_bytes",
        ),
    ),
    Fault(
        18,
        "the exact network was made anew for each bad tile",
        ("test_host_engine::test_the_exact_network_is_made_once",),
    ),
    Fault(
        19,
        "freed host memory was handed back on CUDA, and the pace was measured on a shape without plans",
        (
            "test_device::test_a_card_computes_in_a_repeatable_way_and_fp32_is_fp32",
            "test_local_backend::test_the_pace_of_a_card_is_measured_on_a_shape_it_has_seen",
        ),
        (8,),
    ),
    Fault(
        20,
        "of the chips with a broken fp16 only those called GTX 16 were known",
        ("test_device::test_cuda_precision_by_card",),
    ),
    Fault(
        21,
        "benchmarks held the card in several processes, waited for the current card, and did not state TF32",
        (
            "test_benchmarks::test_on_a_card_each_variant_runs_alone_where_memory_is_measured",
            "test_benchmarks::test_a_process_that_was_not_asked_yet_does_not_run",
            "test_benchmarks::test_tf32_is_stated_for_a_card",
            "test_benchmarks::test_the_card_that_is_measured_is_waited_for_not_the_current_one",
        ),
    ),
    Fault(
        22,
        "threads worked with another current card than the chosen one",
        ("test_device::test_a_thread_works_on_the_card_that_was_chosen",),
        (7,),
    ),
    Fault(
        23,
        "upstream's faces had other noise on a card, so parity there said nothing",
        ("test_faces_parity::test_faces_are_upstreams_with_networks_of_full_size",),
    ),
    Fault(
        24,
        "accelerators of other makers, and their drivers' errors, were not thought of",
        (
            "test_device::test_an_accelerator_of_another_maker_is_named_and_left",
            "test_device::test_auto_never_fails_whatever_a_driver_raises",
        ),
    ),
    Fault(25, "reflection padding may leave channels-last on a card, at the cost of two passes a layer", steps=(6,)),
    Fault(
        26,
        "nothing overlaps: copies from ordinary memory, tiles joined on the host, a launch for each bias",
        steps=(8, 9, 10),
    ),
)


def test_the_faults_are_numbered_and_each_is_shown_by_something() -> None:
    assert [fault.number for fault in FAULTS] == list(range(1, len(FAULTS) + 1))
    assert all(fault.tests or fault.steps for fault in FAULTS)
    assert {step for fault in FAULTS for step in fault.steps} <= set(STEPS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.number))
def test_the_tests_of_a_fault_exist(fault: Fault) -> None:
    for name in fault.tests:
        module, _, test = name.partition("::")
        tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
