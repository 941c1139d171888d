"""Projected vectors of some frames of each clip, side by side: one row a clip.

A row is the features of its frames one after another, in the order of time, and its `raw_pixels`
are their thumbnails likewise. `columns["frames"]` says how many frames the clip has.
"""

import numpy as np

from fetalclip_jax.data.clip_views import ClipViews
from fetalclip_jax.data.views import Views
from fetalclip_jax.evaluation.features.encoding import encode_views
from fetalclip_jax.evaluation.features.levels import Working
from fetalclip_jax.evaluation.features.store import FeatureStore

KEPT = True
load = FeatureStore.load


def encode(model, source, need, working: Working) -> FeatureStore:
    """See `features.levels`. `need.how` holds the arguments of `data.clip_views.ClipViews`.

    Raises:
      ValueError: as `features.encoding.encode`, and for a source of images.
    """
    image_size = model.config.vision_cfg.image_size
    images = Views(source, image_size, need.transform, only=dict(need.only))
    views = ClipViews(images, **need.how)
    features, gathered = encode_views(
        model,
        views,
        len(source),
        batch_size=working.batch_size,
        workers=working.workers,
        progress=working.progress,
        what="clips",
        pixels_each=views.num_frames,
    )
    clips = len(gathered.views)
    frames = np.array([view.frames for view in gathered.views], np.float64)
    return FeatureStore(
        image_features=features.reshape(clips, -1),
        columns=gathered.columns(0) | {"frames": frames},
        raw_pixels=np.stack(gathered.thumbnails).reshape(clips, -1),
        copy=np.zeros(clips, np.int32),
        fingerprint=dict(working.fingerprint),
        left_out=tuple(gathered.left_out),
    )
