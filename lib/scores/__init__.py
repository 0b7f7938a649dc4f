"""Agreement with people: ranks, cached scores, controls, statistics, verdicts. Draws nothing.

May import: study and the rooms below it.
Public names: those below, imported on first use. A scoring run starts with `score_study`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "agreements": ["VALID"],
    "beside_people": ["score_beside_people", "scores_beside_people"],
    "ceiling": ["Ceiling", "Ceilings", "HUMAN_CEILING", "SPEARMAN_BROWN"],
    "control_scores": ["score_controls"],
    "controls": ["CONTROLS", "control_labels"],
    "fixation_measures": ["FIXATION_MEASURES", "FixationSet", "measure_fixations", "of_one_model",
        "summarise_fixations"],
    "fixation_scores": ["placed_fixations", "score_fixations"],
    "in_memory": ["agreement"],
    "leaderboard": ["accuracy_correlation", "boards", "leaderboard_of"],
    "map_scores": ["Collection", "compare_maps", "score_maps", "summarise_maps"],
    "measures": ["MEASURES", "score_measures", "summarise_measures"],
    "observers": ["ceilings_of", "people_of", "score_observers", "study_ceilings"],
    "results": ["arrange", "beside_controls", "compare_models", "load_ceilings", "load_controls",
        "load_scores", "load_table", "one_of_each", "paired_differences", "per_image_differences",
        "power_table", "size_correlation", "summarise", "summarise_controls", "table_path"],
    "spearman": ["rank_maps", "spearman_per_image"],
    "statistics": ["correlation_interval", "effect_size", "holm", "images_needed",
        "mean_interval", "mean_p", "means_by"],
    "study_scores": ["left_out", "score_share", "score_study"],
    "accuracy": ["weights_table"],
    "claims": ["verdicts"],
})  # fmt: skip
