"""Heatmaps that explain a model's answer: CAM methods, learned maps, heatmaps made elsewhere.

May import: networks, people, base.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cam": ["cam_maps"],
    "combined": ["smoothed"],
    "elsewhere": ["match", "open_maps"],
    "feature_concepts": ["Concepts", "factorised"],
    "forward": ["HeadPass", "enlarge", "head_pass", "is_constant"],
    "live": ["LiveModel", "live_maps"],
    "placed": ["answers", "heatmaps"],
    "methods": ["ALL_METHODS", "CamMethod", "METHODS", "PUBLISHED_METHODS", "grad_cam_variant"],
    "threshold_grad_cam": ["ThresholdGradCAM"],
})  # fmt: skip
