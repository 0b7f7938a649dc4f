"""L-CAM and TAME in a study: training, and comparison of learned maps with Grad-CAM.

May import: what analyses may import.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "comparison": ["LCAM_METHODS", "against_grad_cam", "comparable", "compare_methods",
        "watch_training"],
    "imported": ["import_snapshot"],
    "trainings": ["default_recipe", "folder_images", "train_variant"],
})  # fmt: skip
