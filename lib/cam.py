"""Door to the maps: `from lib.cam import cam_maps`, and `dcls-cam PICTURE`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach("lib.maps", submod_attrs={
    "cam": ["cam_maps"],
    "forward": ["HeadPass", "enlarge", "head_pass", "is_constant"],
    "methods": ["CamMethod", "METHODS"],
    "threshold_grad_cam": ["ThresholdGradCAM"],
})  # fmt: skip

if __name__ == "__main__":
    from lib.commands.one_picture import main

    raise SystemExit(main())
