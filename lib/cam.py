"""Door to the maps: `from lib.cam import cam_maps, live_maps`, and `dcls-cam IMAGE`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(f"{__package__}.maps", submod_attrs={
    "cam": ["cam_maps"],
    "combined": ["smoothed"],
    "feature_concepts": ["Concepts", "factorised"],
    "forward": ["HeadPass", "enlarge", "head_pass", "is_constant"],
    "live": ["LiveModel", "live_maps"],
    "methods": ["CamMethod", "METHODS"],
    "pixel": ["guided_gradient"],
    "targets": [
        "binary", "class_in_region", "class_probability", "class_rest", "class_score", "likeness",
        "sum_of_answer", "unlikeness", "whole_answer",
    ],
    "threshold_grad_cam": ["ThresholdGradCAM"],
})  # fmt: skip

if __name__ == "__main__":
    from .commands.one_image import main

    raise SystemExit(main())
