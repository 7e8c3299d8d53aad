"""Hold packed models against featx: every head on every network, run by onnxruntime alone in another process.

python examples/check_pack.py photos/ --backbones efficientnet_lite0,resnet50 --heads logreg,knn --precisions fp32,int8

Prints a row of Markdown a file: how many labels of the test images (or of all, where the data has no test split) are
those of featx, and how far the probabilities are apart. Networks without weights of their own here are random: what
is compared is what is computed. Status 1 where a label at fp32 differs or a probability is more than 1e-4 off.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import featx

#: What runs a file where neither PyTorch nor featx can be imported.
RUN = """
import sys
sys.modules.update(dict.fromkeys(["torch", "featx", "onnx"]))
import numpy as np
import onnxruntime
from PIL import Image, ImageOps
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options)
photos = open(sys.argv[2]).read().splitlines()
found = []
for photo in photos:
    image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    found.append(session.run(["probabilities"], {"images": np.asarray(image)[None]})[0][0])
np.save(sys.argv[3], np.array(found))
"""
#: Settings that differ from a head's own.
SETTINGS = {"conv": {"layers": "conv16 relu gap"}, "xgboost": {"n_estimators": 20}}
#: Heads of several models or tables, made of others.
COMPOSED = ("join", "ensemble")


def photos_of(table: featx.Features, root: Path, most: int) -> list[str]:
    """Return the files of the test images, or of all."""
    splits = np.asarray(table.splits)
    rows = np.flatnonzero(splits == "test") if (splits == "test").any() else np.arange(len(table))
    paths = [str(root / table.ids[row]) for row in rows]
    return [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int))]


def outside(file: Path, photos: list[str], folder: Path) -> np.ndarray:
    """Return the probabilities that another process gets of a file with onnxruntime alone."""
    (folder / "photos.txt").write_text("\n".join(photos))
    words = [sys.executable, "-c", RUN, str(file), str(folder / "photos.txt"), str(folder / "found.npy")]
    subprocess.run(words, check=True, cwd=folder)
    return np.load(folder / "found.npy")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--backbones", default="efficientnet_lite0")
    options.add_argument("--heads", default="logreg,mlp,ridge,centroid,svm,knn,xgboost,conv,join,ensemble")
    options.add_argument("--precisions", default="fp32")
    options.add_argument("--most", type=int, default=1_000_000, help="test images at most")
    options.add_argument("--cache", default="cache")
    asked = options.parse_args()
    wrong = False
    print("| network | head | precision | MB | images | same labels | farthest probability |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.backbones.split(","):
        how = {"backbone": name, "cache": asked.cache}
        if name != "efficientnet_lite0":
            how["weights"] = "none"
        table = featx.extract(asked.data, **how)
        photos, fitted = photos_of(table, asked.data, asked.most), {}
        for head in asked.heads.split(","):
            if head == "ensemble":
                fitted.setdefault("logreg", featx.fit(table, head="logreg"))
                fitted.setdefault("ridge", featx.fit(table, head="ridge"))
                model = featx.ensemble([fitted["logreg"], fitted["ridge"]])
            elif head == "join":
                other = featx.extract(asked.data, backbone="timm/test_vit", weights="none", cache=asked.cache)
                model = featx.fit(featx.join([table, other]), head="logreg")
            else:
                rows = featx.extract(asked.data, pool="none", **how) if head == "conv" else table
                model = fitted[head] = featx.fit(rows, head=head, settings=SETTINGS.get(head, {}))
            expected = model.predict_proba(photos, engine="eager")
            for precision in asked.precisions.split(","):
                with tempfile.TemporaryDirectory() as made:
                    file = Path(made) / "model.onnx"
                    try:
                        featx.pack(model, file, precision=precision)
                    except featx.errors.ProbeError as error:
                        print(f"| {name} | {head} | {precision} | refused: {error} | | | |", flush=True)
                        wrong |= precision == "fp32"
                        continue
                    found, size = outside(file, photos, Path(made)), file.stat().st_size / 1e6
                same, apart = (found.argmax(1) == expected.argmax(1)).mean(), np.abs(found - expected).max()
                wrong |= precision == "fp32" and (same < 1 or apart > 1e-4)
                row = f"{size:.1f} | {len(photos)} | {100 * same:.4g} % | {apart:.1e}"
                print(f"| {name} | {head} | {precision} | {row} |", flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
