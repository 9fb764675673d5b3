"""Situations that users met in this program or in others, and the tests that hold them: `CASES`."""

from __future__ import annotations

CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "reports-F1": (
        "A -paper model is saved and loaded with two data-parallel ranks",
        ("tests/checkpoint/test_contract.py::test_every_model_has_two_replicas",),
    ),
    "reports-F2": (
        "SIGTERM during a validation is heard, and the run saves in time",
        ("tests/end_to_end/test_cluster.py::test_a_validation_is_dropped_for_a_signal_and_made_again",),
    ),
    "reports-F3": (
        "A tokenizer's first token stands before each document",
        (
            "tests/data/test_tokenizer.py::test_the_begin_token_is_the_post_processors",
            "tests/data/test_tokenizer.py::test_a_model_begins_texts_where_its_folder_says_so",
            "tests/data/prepare/test_frame.py::test_the_bytes_are_those_of_megatrons_script_with_a_begin_token",
            "tests/data/prepare/test_frame.py::test_flags_decide",
        ),
    ),
    "reports-F4": (
        "Tokenizers of corpus, model and teacher are compared",
        ("tests/training/test_identity.py::test_three_tokenizers_are_compared",),
    ),
    "reports-F5": (
        "The end token that the tokenizer's folder names is taken",
        ("tests/data/test_tokenizer.py::test_the_end_token_is_the_one_that_the_folder_names",),
    ),
    "reports-F6": (
        "What ends a text survives the way in and out",
        ("tests/checkpoint/test_from_hf.py::test_the_tokenizer_and_shards_go_out_too",),
    ),
    "reports-F7": (
        "Teacher and student with the same tokenizer and other padding of the vocabulary",
        ("tests/teachers/test_families.py::test_vocabularies_of_other_sizes_are_compared_by_their_tokenizers",),
    ),
    "reports-F8": (
        "Model FLOPs utilisation has one definition",
        ("tests/training/test_metrics.py::test_utilisation_is_the_same_in_every_place",),
    ),
    "reports-F9": (
        "A run that is started again goes on in the same W&B run",
        ("tests/training/test_metrics.py::test_weights_and_biases_gets_every_number",),
    ),
    "reports-F10": (
        "A teacher is told from another by its weights",
        (
            "tests/training/test_identity.py::test_a_teacher_is_its_weights",
            "tests/training/test_identity.py::test_fingerprints_are_of_the_content",
        ),
    ),
    "reports-F11": (
        "A learning rate of 0, a validation in which nothing counts",
        (
            "tests/training/test_step.py::test_a_learning_rate_of_zero_trains_nothing",
            "tests/training/test_step.py::test_validation_windows_in_which_nothing_counts_have_no_loss",
        ),
    ),
    "reports-F12": (
        "SIGUSR1, SIGUSR2 and SIGHUP save",
        ("tests/training/test_signals.py::test_each_signal_is_noted_and_nothing_ends",),
    ),
    "reports-F13": (
        "A validation is not lost where a run stops at its step",
        ("tests/end_to_end/test_cluster.py::test_stopped_where_it_validates_and_prunes",),
    ),
    "reports-F14": (
        "A conversion that is not equal leaves no run behind",
        ("tests/checkpoint/test_hf_corruptions.py::test_every_corruption_is_refused_and_leaves_nothing",),
    ),
    "reports-F15": (
        "A finished run that is lengthened says what its learning rate does",
        ("tests/training/test_plan.py::test_another_length_is_refused_where_the_learning_rate_would_jump",),
    ),
    "interop-F1": (
        "One task that cannot be loaded leaves the scores of the others",
        (
            "tests/evaluation/test_recorder.py::test_one_task_costs_no_other_its_score",
            "tests/evaluation/test_recorder.py::test_an_end_in_the_third_task_keeps_two",
        ),
    ),
    "interop-F2": (
        "Sliding windows are kept, or lengths beyond them refused",
        ("tests/models/families/test_hf_config.py::test_a_sliding_window_is_kept",),
    ),
    "interop-F3": ("PaLM exports that llama.cpp loads", ()),
    "interop-F4": (
        "Several end tokens and the generation defaults",
        ("tests/checkpoint/test_from_hf.py::test_the_tokenizer_and_shards_go_out_too",),
    ),
    "interop-F5": (
        "A right conversion is called equal where logits are large",
        ("tests/checkpoint/test_comparison.py::test_rounding_grows_with_the_logits",),
    ),
    "interop-F6": (
        "to-hf overwrites no folder of others",
        ("tests/checkpoint/test_hf_corruptions.py::test_an_export_replaces_an_export_and_nothing_else",),
    ),
    "interop-F7": (
        "Tokenizers larger than the embedding",
        ("tests/checkpoint/test_hf_corruptions.py::test_every_corruption_is_refused_and_leaves_nothing",),
    ),
    "interop-F8": (
        "Both back ends choose the same answer in bf16",
        ("tests/evaluation/test_harness.py::test_half_precision_makes_no_ties",),
    ),
    "interop-F9": (
        "One-token windows, merged continuations, quantised folders",
        ("tests/checkpoint/test_hf_corruptions.py::test_every_corruption_is_refused_and_leaves_nothing",),
    ),
    "interop-F10": (
        "Missing keys of config.json have transformers' defaults",
        (
            "tests/models/families/test_hf_config.py::test_a_missing_key_means_what_transformers_takes_it_for",
            "tests/models/families/test_hf_config.py::test_other_names_of_a_key",
        ),
    ),
    "interop-F11": (
        "A continuation longer than the context is told",
        ("tests/evaluation/test_harness.py::test_a_continuation_that_is_too_long_is_said",),
    ),
    "interop-F12": (
        "Prompts longer than a model's positions, empty prompts, names of unknown families",
        (
            "tests/models/families/test_registry.py::test_another_architecture_is_not_suggested_for_one_that_transformers_knows",
            "tests/generation/test_generate.py::test_what_cannot_be_continued",
        ),
    ),
    "numerics-F1": (
        "A -paper model is saved with data parallelism",
        ("tests/checkpoint/test_contract.py::test_every_model_has_two_replicas",),
    ),
    "numerics-F2": (
        "The rest of a distribution on the wire of the k largest logits, in log space",
        ("tests/losses/test_distill_logits.py::test_the_largest_of_a_confident_teacher",),
    ),
    "numerics-F3": (
        "A learning rate of 0 with Lion",
        ("tests/training/test_step.py::test_a_learning_rate_of_zero_trains_nothing",),
    ),
    "numerics-F4": (
        "The embedding-table loss leaves rows of padding out",
        ("tests/losses/test_homotopic.py::test_rows_of_padding_are_no_part_of_the_mean",),
    ),
    "numerics-F5": (
        "What the papers' FLOPs count",
        ("tests/training/test_plan.py::test_flops_are_the_sum_over_all_steps",),
    ),
    "numerics-F6": (
        "Skewed reverse KL where q is nearly all of the mixture",
        ("tests/losses/test_divergences.py::test_fp32_is_accurate_where_one_is_nearly_all_of_the_mixture",),
    ),
    "numerics-F7": (
        "When divergences can be below 0",
        ("tests/losses/test_divergences.py::test_logits_of_minus_infinity",),
    ),
    "numerics-F8": (
        "Three pipeline stages, a seed phase, and a loss inside the layers",
        ("tests/training/test_student.py::test_a_stage_whose_layers_are_all_frozen",),
    ),
    "numerics-F9": (
        "A pipeline stage whose layers are all frozen is loaded with its optimizer",
        ("tests/training/test_student.py::test_a_stage_whose_layers_are_all_frozen",),
    ),
    "numerics-F10": (
        "Padding rows of a public teacher take no probability",
        (
            "tests/teachers/test_families.py::test_teachers_of_other_families",
            "tests/losses/test_distill_logits.py::test_tokens_that_the_teacher_does_not_have_get_none_of_its_probability",
        ),
    ),
    "data-D1": (
        "A folder PREFIX.parts with files of others",
        (
            "tests/data/prepare/test_parts_folder.py::test_a_folder_with_other_files_is_refused_untouched",
            "tests/data/prepare/test_parts_folder.py::test_input_in_the_folder_is_refused",
        ),
    ),
    "data-D2": (
        "Truncation and padding of a tokenizer.json",
        ("tests/data/test_hostile_texts.py::test_truncation_and_padding_of_a_tokenizer_json_change_no_corpus",),
    ),
    "data-D3": (
        "Normalisation of SentencePiece models under gigatoken",
        (
            "tests/data/test_hostile_texts.py::test_every_form_of_tokenizer_gives_the_ids_of_its_own_library",
            "tests/data/test_hostile_texts.py::test_no_letter_is_lost_after_many_ordinary_documents",
        ),
    ),
    "data-D4": (
        "Shards that are empty or all NUL",
        (
            "tests/data/prepare/test_compressed.py::test_files_that_were_never_written_whole_are_damaged",
            "tests/data/prepare/test_compressed.py::test_a_file_of_no_text_holds_nothing",
        ),
    ),
    "data-D5": (
        "Weighted blends in megatron-core's order",
        ("tests/data/test_megatron_order.py::test_weights_give_the_order_of_blended_dataset",),
    ),
    "data-D6": (
        "Begin and end tokens: the folder's, or a flag's",
        (
            "tests/data/test_tokenizer.py::test_the_end_token_is_the_one_that_the_folder_names",
            "tests/data/test_tokenizer.py::test_the_begin_token_is_the_post_processors",
            "tests/data/test_tokenizer.py::test_a_model_begins_texts_where_its_folder_says_so",
            "tests/data/prepare/test_frame.py::test_the_bytes_are_those_of_megatrons_script_with_a_begin_token",
            "tests/data/prepare/test_frame.py::test_flags_decide",
        ),
    ),
    "data-D7": (
        "A system error of a worker names its file",
        ("tests/data/prepare/test_crew.py::test_what_a_worker_cannot_do_is_an_error_of_its_kind",),
    ),
    "data-D8": (
        "Zstandard files with long windows",
        ("tests/data/prepare/test_compressed.py::test_any_window_of_zstandard_is_read",),
    ),
    "data-D9": (
        "Bad lines of large files are counted once",
        ("tests/data/prepare/test_preprocess.py::test_lines_are_counted_once_for_the_places_that_are_named",),
    ),
    "data-D10": (
        "A file system without locks",
        (
            "tests/data/prepare/test_lock.py::test_without_flock_a_file_keeps_others_out",
            "tests/data/prepare/test_lock.py::test_workers_of_a_run_that_was_killed_are_waited_for",
        ),
    ),
    "data-D11": (
        "Tables of a damaged .idx",
        ("tests/data/prepare/test_instructions.py::test_a_damaged_index_is_refused_or_read_as_it_was",),
    ),
    "data-D12": (
        "What a converted SentencePiece model promises",
        ("tests/data/test_hostile_texts.py::test_every_form_of_tokenizer_gives_the_ids_of_its_own_library",),
    ),
    "data-D13": ("Many tiny shards", ()),
    "data-D14": (
        "Byte order marks and line ends of Windows",
        ("tests/data/prepare/test_corpus.py::test_a_byte_order_mark_is_no_text",),
    ),
    "data-D15": (
        "Prefixes of folders, negative lengths, pipes, copies that stop",
        (
            "tests/data/prepare/test_parts_folder.py::test_a_prefix_without_a_name_is_refused",
            "tests/data/prepare/test_corpus.py::test_pipes_and_folders_are_said",
            "tests/data/prepare/test_merge.py::test_a_file_system_that_copies_nothing_and_says_nothing_is_copied_by_hand",
            "tests/data/prepare/test_merge.py::test_a_kill_between_the_two_renames_leaves_no_mixture",
            "tests/data/prepare/test_preprocess.py::test_a_prompt_of_no_tokens_is_refused",
            "tests/data/prepare/test_preprocess.py::test_a_file_that_is_given_twice_is_said",
        ),
    ),
    "cluster-C1": (
        "A --save that the nodes do not share",
        (
            "tests/checkpoint/test_saving.py::test_a_folder_that_ranks_do_not_share_gives_no_checkpoint",
            "tests/end_to_end/test_agreement.py::test_a_run_folder_that_nodes_do_not_share",
        ),
    ),
    "cluster-C2": (
        "A rank that fails alone says why",
        (
            "tests/end_to_end/test_agreement.py::test_data_that_one_node_lacks",
            "tests/parallel/test_meeting.py::test_who_refuses_tells_the_others_even_if_one_never_comes",
        ),
    ),
    "cluster-C3": (
        "Ranks that see another newest checkpoint",
        ("tests/end_to_end/test_agreement.py::test_another_newest_checkpoint",),
    ),
    "cluster-C4": (
        "Ranks with other flags or other data",
        (
            "tests/end_to_end/test_agreement.py::test_other_flags",
            "tests/end_to_end/test_agreement.py::test_data_of_the_same_size_with_other_content",
        ),
    ),
    "cluster-S1": (
        "No pickle of a checkpoint is executed",
        (
            "tests/checkpoint/test_planted.py::test_no_file_of_a_run_is_executed",
            "tests/checkpoint/test_planted.py::test_loading_into_a_model_executes_nothing",
        ),
    ),
    "hostile-A1": (
        "Scores belong to weights",
        (
            "tests/evaluation/test_score_file.py::test_weights_that_were_written_anew_inherit_nothing",
            "tests/evaluation/test_score_file.py::test_the_content_decides_and_not_the_path",
        ),
    ),
    "hostile-A2": (
        "A run that starts anew takes its own tokenizer",
        (
            "tests/checkpoint/test_folder.py::test_a_run_that_starts_anew_inherits_nothing",
            "tests/checkpoint/test_folder.py::test_everything_of_an_abandoned_run_is_moved_aside",
            "tests/checkpoint/test_folder.py::test_a_first_save_that_was_killed_leaves_no_tokenizer",
        ),
    ),
    "hostile-A3": (
        "An export in a run's folder",
        ("tests/checkpoint/test_inference.py::test_the_newest_checkpoint_counts_in_a_run_that_holds_an_export",),
    ),
    "hostile-A4": (
        "Checkpoints of a run that was abandoned",
        (
            "tests/checkpoint/test_folder.py::test_a_run_that_starts_anew_inherits_nothing",
            "tests/checkpoint/test_folder.py::test_everything_of_an_abandoned_run_is_moved_aside",
        ),
    ),
    "hostile-A5": (
        "--tokenizer FILE in a folder with others",
        ("tests/checkpoint/test_inference.py::test_a_tokenizer_that_is_given_is_read_and_not_its_neighbour",),
    ),
    "hostile-A6": (
        "Tokenizers are read whole before they are used",
        (
            "tests/data/test_gpt2_files.py::test_merges_that_are_cut_off_are_refused",
            "tests/training/test_identity.py::test_a_damaged_tokenizer_is_found_before_the_run",
        ),
    ),
    "hostile-A7": (
        "evaluate and generate read checksums",
        ("tests/checkpoint/test_inference.py::test_every_byte_is_compared_before_it_is_used",),
    ),
    "hostile-A8": (
        "An export over an older one",
        ("tests/checkpoint/test_hf_corruptions.py::test_an_export_replaces_an_export_and_nothing_else",),
    ),
    "hostile-A9": (
        "Finished parts have checksums",
        (
            "tests/data/prepare/test_parts.py::test_a_changed_bit_anywhere_is_seen",
            "tests/data/prepare/test_preprocess.py::test_a_damaged_part_is_made_anew",
        ),
    ),
    "hostile-A10": (
        "Lengths in an .idx are held against their sum",
        ("tests/data/test_indexed_faults.py::test_lengths_that_are_not_those_of_the_offsets_are_seen",),
    ),
    "hostile-A11": (
        "Empty paths and numbers that mean something else",
        (
            "tests/config/test_limits.py::test_what_no_path_is",
            "tests/end_to_end/test_wrong_inputs.py::test_each_ends_with_one_sentence",
        ),
    ),
    "hostile-A12": (
        "Paths within a run; where `latest` may point",
        ("tests/checkpoint/test_folder.py::test_latest_names_a_checkpoint_and_no_path",),
    ),
    "hostile-B1": (
        "Devices are written into, not replaced",
        (
            "tests/data/test_whole_file.py::test_a_device_stays_a_device",
            "tests/data/test_whole_file.py::test_a_pipe_gets_the_bytes_and_stays_a_pipe",
        ),
    ),
    "hostile-B2": (
        "A damaged file of scores is set aside",
        ("tests/evaluation/test_score_file.py::test_a_damaged_file_is_set_aside_and_never_emptied",),
    ),
    "hostile-B3": (
        "Scores are written before they are printed",
        ("tests/evaluation/test_recorder.py::test_an_end_in_the_third_task_keeps_two",),
    ),
    "hostile-B4": (
        "A separate teacher's memory is flat",
        ("tests/end_to_end/test_memory.py::test_nothing_grows_from_step_to_step",),
    ),
    "hostile-B5": (
        "One odd run does not end the report of all",
        (
            "tests/report/test_records.py::test_a_value_of_another_type_leaves_its_run_out",
            "tests/report/test_records.py::test_damaged_lines_are_counted_and_said",
        ),
    ),
    "hostile-B6": (
        "result.json of a finished run that is lengthened on a full disk",
        ("tests/end_to_end/test_cluster.py::test_a_finished_run_that_a_full_disk_keeps_from_going_on_stays_finished",),
    ),
    "hostile-C1": (
        "A tokenizer without an end token",
        ("tests/data/test_tokenizer.py::test_a_tokenizer_without_an_end_is_exported_without_one",),
    ),
    "hostile-D1": (
        "Conversions need no other rank",
        ("tests/checkpoint/test_inference.py::test_variables_of_a_job_do_not_make_a_lone_program_wait",),
    ),
    "hostile-D2": (
        "--workers beyond the cores",
        ("tests/data/prepare/test_preprocess.py::test_no_workers_are_refused_and_too_many_are_cores",),
    ),
    "hostile-D3": (
        "A full stdout is not a full disk",
        ("tests/config/test_program.py::test_a_full_disk_behind_the_output_is_a_sentence",),
    ),
    "hostile-D4": (
        "Dry runs of millions of steps",
        ("tests/training/test_plan.py::test_a_plan_of_a_billion_steps_takes_no_loop_over_them",),
    ),
    "hostile-D5": ("Ctrl-C ends in a sentence", ("tests/config/test_program.py::test_one_sentence_and_an_exit_code",)),
    "hostile-D6": (
        "Terminals that cannot print a name",
        (
            "tests/config/test_program.py::test_a_name_that_the_terminal_cannot_show_is_escaped",
            "tests/config/test_program.py::test_closed_streams_are_no_reason_to_fail",
        ),
    ),
    "house-F1": (
        "Exported -paper code with a cache",
        (
            "tests/checkpoint/test_huggingface.py::test_the_paper_flavour_brings_its_own_code",
            "tests/test_architecture.py::test_dependencies_are_bounded_and_pinned",
        ),
    ),
    "house-F2": (
        "A run does not resume against another teacher's weights",
        (
            "tests/training/test_identity.py::test_a_teacher_is_its_weights",
            "tests/training/test_identity.py::test_fingerprints_are_of_the_content",
        ),
    ),
    "house-F3": (
        "Scores of a second text or instruction set",
        ("tests/evaluation/test_score_file.py::test_a_second_text_stands_beside_the_first",),
    ),
    "house-F4": (
        "Every registered loss on split ranks",
        ("tests/teachers/test_contract.py::test_split_ranks_are_one_rank",),
    ),
    "house-F5": (
        "Planner and cost ask a loss, not its name",
        (
            "tests/config/test_distillation_cost.py::test_a_cost_names_what_its_loss_asks_for",
            "tests/planning/test_memory.py::test_a_new_loss_on_logits_needs_the_memory_of_vanilla",
        ),
    ),
    "house-F6": (
        "Flags and messages that disagree",
        ("tests/end_to_end/test_bad_input.py::test_one_sentence_before_anything_starts",),
    ),
}
"""(what must hold, nodes of its tests) by name."""
