"""Agreement with human maps: the per-image scores and the results table.

Scores are kept on disk, one file per variant, under a name that contains a hash
of everything that determines them; what is asked for again is read, not computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from tqdm import tqdm

from lib import cam, clickme, dcls, methods, models, spearman
from lib.backbones import Backbone, variant_name
from lib.cam import is_constant
from lib.clickme import ClickMeBatch
from lib.conversion import parameter_counts
from lib.fingerprint import fingerprint
from lib.methods import CamMethod
from lib.models import StudyModel, sha256_of
from lib.outputs import write_atomically
from lib.spearman import Ranks, rank_maps, spearman_per_image
from lib.statistics import mean_interval
from lib.study import Study

# Harmonization's constant: the average inter-rater alignment of ClickMe's players.
HUMAN_CEILING = 0.6575315343478081

VALID = "valid"
CONSTANT_MODEL_MAP = "constant model map"
CONSTANT_HUMAN_MAP = "constant human map"
NON_FINITE = "non-finite map"

# A change to any of these may change a score, so kept scores depend on their text.
_DETERMINING_CODE = (cam, clickme, dcls, methods, models, spearman)


def score_batch(
    model: StudyModel, batch: ClickMeBatch, human: Ranks, rows: Sequence[CamMethod]
) -> pd.DataFrame:
    """Scores of one batch: a row per image and method.

    The target is the picture's label, as published. `rho` is Spearman's correlation
    over all pixels; it is missing where `validity` says why.
    """
    device = next(model.parameters()).device
    x = model.prepare(batch.pictures).to(device)
    if device.type == "cpu":
        x = x.contiguous(memory_format=torch.channels_last)
    passed = cam.head_pass(model, x, batch.labels)
    best = passed.logits.topk(min(5, passed.logits.shape[1]), dim=1).indices.cpu()
    hits = best == batch.labels[:, None]
    frames = []
    for row in rows:
        maps = cam.enlarge(row.small_map(passed.features, passed.gradient))
        rho = spearman_per_image(maps, human).cpu()
        frames.append(
            pd.DataFrame(
                {
                    "method": row.key,
                    "image_id": batch.image_ids,
                    "label": batch.labels.numpy(),
                    "rho": rho.numpy(),
                    "validity": _validity(maps, human),
                    "top1": hits[:, 0].numpy(),
                    "top5": hits.any(dim=1).numpy(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _validity(maps: torch.Tensor, human: Ranks) -> list[str]:
    finite = torch.isfinite(maps).flatten(1).all(dim=1).cpu() & torch.isfinite(human.norm).cpu()
    constant, human_constant = is_constant(maps).cpu(), (human.norm == 0).cpu()
    words = []
    for is_finite, model_flat, human_flat in zip(finite, constant, human_constant, strict=True):
        if not is_finite:
            words.append(NON_FINITE)
        elif human_flat:
            words.append(CONSTANT_HUMAN_MAP)
        else:
            words.append(CONSTANT_MODEL_MAP if model_flat else VALID)
    return words


def _key(study: Study, backbone: Backbone, has_dcls: bool, shards: list[str]) -> str:
    """A hash of what determines a variant's scores."""
    return fingerprint(
        {
            "variant": variant_name(backbone.key, has_dcls),
            "weights": sha256_of(study.weights_path(backbone.key, has_dcls)),
            "backbone": backbone,
            "shards": shards,
            "limit": study.limit,
            "classes": study.profile.classes,
            "methods": study.methods,
            "code": _DETERMINING_CODE,
            "torch": torch.__version__,
        }
    )


def score_study(study: Study) -> pd.DataFrame:
    """The tidy per-image table of a study: computed where not kept, then kept.

    One row per variant, method and image: `variant, backbone, dcls, protocol,
    method, image_id, label, rho, validity, top1, top5`.
    Raises MissingInputs, and ShardError for an unreadable shard.
    """
    study.require_inputs()
    shards = [sha256_of(path) for path in study.shard_paths()]
    folder = study.output / "scores"
    paths = {}
    for backbone, has_dcls in study.variants:
        name, key = variant_name(backbone.key, has_dcls), _key(study, backbone, has_dcls, shards)
        paths[backbone.key, has_dcls] = folder / f"{name}-{key}.parquet"
    missing = [variant for variant, path in paths.items() if not path.is_file()]
    if missing:
        # Pictures and human ranks serve every variant: read and rank them once.
        batches = list(_ranked_batches(study))
        for key, has_dcls in tqdm(missing, desc="scoring", unit="model"):
            scores = score_variant(study, key, has_dcls, batches)
            with write_atomically(paths[key, has_dcls]) as partial:
                scores.to_parquet(partial, index=False)
    return pd.concat([pd.read_parquet(path) for path in paths.values()], ignore_index=True)


def _ranked_batches(study: Study) -> Iterator[tuple[ClickMeBatch, Ranks]]:
    device = study.torch_device()
    for batch in study.clickme().batches(study.batch_size):
        yield batch, rank_maps(batch.human_maps.to(device))


def score_variant(
    study: Study, key: str, has_dcls: bool, batches: Sequence[tuple[ClickMeBatch, Ranks]]
) -> pd.DataFrame:
    """Scores of one variant over ranked batches."""
    model = study.load_model(key, has_dcls).for_inference()
    scores = pd.concat(
        [score_batch(model, batch, human, study.methods) for batch, human in batches],
        ignore_index=True,
    )
    names = {"variant": variant_name(key, has_dcls), "backbone": key, "dcls": has_dcls,
             "protocol": "published"}  # fmt: skip
    for column, value in reversed(names.items()):
        scores.insert(0, column, value)
    return scores


def summarise(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """Score of each variant and method: one row each.

    score, low, high : mean rho of the valid images divided by the human ceiling,
                       and its 95 % bootstrap interval over images
    n, n_constant_model, n_constant_human, n_non_finite : images scored, left out
    top1             : share of all images classified correctly
    parameters       : learnable, in millions
    """
    rows = []
    for backbone in study.backbones:
        parameters = parameter_counts(
            backbone, mini=study.profile.mini, classes=study.profile.classes
        )
        for has_dcls in (False, True):
            of_variant = scores[(scores.backbone == backbone.key) & (scores.dcls == has_dcls)]
            for method in study.methods:
                chosen = of_variant[of_variant.method == method.key]
                valid = chosen.rho[chosen.validity == VALID] / HUMAN_CEILING
                score, low, high = mean_interval(valid)
                counts = chosen.validity.value_counts()
                rows.append(
                    {
                        "backbone": backbone.key,
                        "label": backbone.label,
                        "dcls": has_dcls,
                        "method": method.key,
                        "parameters_millions": parameters[has_dcls] / 1e6,
                        "top1": chosen.top1.mean(),
                        "score": score,
                        "low": low,
                        "high": high,
                        "n": len(valid),
                        "n_constant_model": counts.get(CONSTANT_MODEL_MAP, 0),
                        "n_constant_human": counts.get(CONSTANT_HUMAN_MAP, 0),
                        "n_non_finite": counts.get(NON_FINITE, 0),
                    }
                )
    return pd.DataFrame(rows)


def paired_differences(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """DCLS minus baseline, paired per image on the images valid for both.

    difference, low, high : mean in units of the score, 95 % bootstrap interval
    n_paired              : images in the comparison
    """
    valid = scores[scores.validity == VALID]
    wide = valid.pivot(index=["backbone", "method", "image_id"], columns="dcls", values="rho")
    wide = wide.reindex(columns=[False, True]).dropna()
    rows = []
    for backbone in study.backbones:
        for method in study.methods:
            try:
                pair = wide.loc[(backbone.key, method.key)]
            except KeyError:  # no image is valid for both
                pair = wide.iloc[:0]
            gain = (pair[True] - pair[False]) / HUMAN_CEILING
            difference, low, high = mean_interval(gain)
            rows.append(
                {
                    "backbone": backbone.key,
                    "method": method.key,
                    "difference": difference,
                    "low": low,
                    "high": high,
                    "n_paired": len(pair),
                }
            )
    return pd.DataFrame(rows)


def size_correlation(summary: pd.DataFrame, method: str) -> float:
    """Rank correlation of size and score over the baselines under one method."""
    base = summary[~summary.dcls & (summary.method == method)]
    return float(base.parameters_millions.corr(base.score, method="spearman"))


def results_table(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """The study's results table: one row per method and backbone.

    Parameters (millions), top-1 and score without and with DCLS, the paired
    difference with its 95 % interval, images compared, and invalid maps.
    """
    summary = summarise(study, scores).assign(
        invalid=lambda t: t.n_constant_model + t.n_constant_human + t.n_non_finite
    )
    differences = paired_differences(study, scores)
    rows = []
    for method in study.methods:
        for backbone in study.backbones:
            mine = (summary.backbone == backbone.key) & (summary.method == method.key)
            base, with_dcls = (summary[mine & (summary.dcls == d)].iloc[0] for d in (False, True))
            paired = (differences.backbone == backbone.key) & (differences.method == method.key)
            gain = differences[paired].iloc[0]
            rows.append(
                {
                    "data": study.profile.label,
                    "method": method.label,
                    "backbone": backbone.label,
                    "params_M": base.parameters_millions,
                    "params_M_dcls": with_dcls.parameters_millions,
                    "top1": base.top1,
                    "top1_dcls": with_dcls.top1,
                    "score": base.score,
                    "score_dcls": with_dcls.score,
                    "difference": gain.difference,
                    "difference_low": gain.low,
                    "difference_high": gain.high,
                    "n_paired": gain.n_paired,
                    "invalid": base.invalid,
                    "invalid_dcls": with_dcls.invalid,
                }
            )
    return pd.DataFrame(rows)


_READABLE = {
    "method": "Method",
    "backbone": "Backbone",
    "params_M": "Params (M)",
    "params_M_dcls": "with DCLS",
    "top1": "Top-1 (%)",
    "top1_dcls": "with DCLS",
    "score": "Score",
    "score_dcls": "with DCLS",
    "gain": "Difference [95 %]",
    "n_paired": "n",
    "excluded": "Invalid maps (without, with)",
}


def readable_table(results: pd.DataFrame) -> pd.DataFrame:
    """The results table as a reader wants it: text, rounded, with intervals."""

    def rounded(column: str, digits: int, scale: float = 1.0) -> pd.Series:
        return (results[column] * scale).map(f"{{:.{digits}f}}".format)

    few = results.params_M.max() < 10
    text = results.assign(
        params_M=rounded("params_M", 3 if few else 1),
        params_M_dcls=rounded("params_M_dcls", 3 if few else 1),
        top1=rounded("top1", 1, 100),
        top1_dcls=rounded("top1_dcls", 1, 100),
        score=rounded("score", 3),
        score_dcls=rounded("score_dcls", 3),
        gain=[
            f"{r.difference:+.3f} [{r.difference_low:+.3f}, {r.difference_high:+.3f}]"
            for r in results.itertuples()
        ],
        excluded=[f"{r.invalid}, {r.invalid_dcls}" for r in results.itertuples()],
    )
    table = text[list(_READABLE)]
    table.columns = list(_READABLE.values())
    return table


def write_results(study: Study, results: pd.DataFrame) -> None:
    """Write the results table as CSV (numbers), Markdown and LaTeX (rounded)."""
    folder = study.output / "tables"
    caption = (
        f"Score: mean Spearman correlation with human maps over the human ceiling "
        f"{HUMAN_CEILING:.5f} ({study.profile.label}, protocol as published, target: true class). "
        f"Difference: DCLS minus baseline, paired per image. {study.profile.caveat}"
    ).strip()
    table = readable_table(results)
    latex = table.style.hide(axis="index").to_latex(
        caption=_latex_text(caption), hrules=True, label="tab:results"
    )
    texts = {
        "results.csv": results.to_csv(index=False),
        "results.md": f"{table.to_markdown(index=False)}\n\n{caption}\n",
        "results.tex": latex.replace("%", r"\%"),
    }
    for name, text in texts.items():
        with write_atomically(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def _latex_text(text: str) -> str:
    return text.replace("&", r"\&").replace("_", r"\_")
