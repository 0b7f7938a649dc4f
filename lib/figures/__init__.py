"""Drawing of finished data, one look for all figures. Computes no score.

May import: study and the rooms below it, no scores and no analyses.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "analyses": ["plot_alignment_against_faithfulness", "plot_compared", "plot_floor_sweep",
        "plot_measures", "plot_method_ranking", "plot_paired_differences", "plot_randomisation",
        "plot_two_by_two"],
    "captions": ["CAPTIONS", "alt_text_of", "caption_of"],
    "concepts": ["plot_concepts"],
    "cose": ["plot_consistency_against_sensitivity", "plot_cose_by_change", "plot_followed"],
    "faithfulness": ["plot_faithfulness"],
    "gaze": ["plot_beside_people", "plot_fixation_measures", "plot_scanpaths"],
    "heatmaps": ["overlay", "plot_heatmap_rows", "plot_kernels", "plot_method_grid",
        "plot_receptive_fields"],
    "leaderboard": ["plot_accuracy_against_score", "plot_leaderboard"],
    "lcam": ["plot_against_grad_cam", "plot_looks", "plot_losses"],
    "map_grids": ["plot_map_grids"],
    "saving": ["draw_files", "save_figure"],
    "scores": ["plot_along", "plot_pairs", "plot_protocols", "plot_rho_distributions",
        "plot_score_bars", "plot_size_against_score"],
    "style": ["model_colours", "plot_nothing", "use_study_style"],
})  # fmt: skip
