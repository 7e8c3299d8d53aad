"""Twelve systems from five public walkthroughs of transfer learning, each from your images to a report.

    python examples/reproduce.py                                 list them
    python examples/reproduce.py E4 --data cifar10/ --print      show the commands, to be typed or changed
    python examples/reproduce.py E4 --data cifar10/              run them

Architecture, head, optimiser, schedule and outputs are the published ones; what a walkthrough leaves open is said in
its row. What they did wrong is not repeated: validation images are never augmented, test images choose nothing, and
pixels are normalised as the weights expect, but for the rows whose recipe is x/255.

DATA: A and E take CIFAR-10 (folder of ``train*.parquet`` and ``test*.parquet``, or ``torchvision:CIFAR10``), B folders
of ten animals, C ``train/`` and ``test/`` over three folders of traffic lights, D a folder with ``labels.csv``,
``train/``, ``test/`` and ``sample_submission.csv``.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from textwrap import dedent

from featx.cli import main as featx

#: Before a command that has to be refused, as in a shell.
REFUSED = "! "


@dataclass(frozen=True)
class System:
    """One system of a walkthrough.

    Attributes
    ----------
    title : str
    published : str
        Accuracies as the walkthrough reports them.
    text : str
        What to type: a line a command, indented lines go on with it. ``$data``, ``$out``, ``$weights`` and ``$epochs``
        are filled in, and `WORDS`.
    epochs : int
    note : str
        What the walkthrough leaves open, and what is other here.
    """

    title: str
    published: str
    text: str
    epochs: int = 10
    note: str = ""


#: What several systems have in common.
WORDS = {
    # The head of E4, E5, E6 and E7, and how it is trained.
    "e_head": '--head mlp --set "layers=256 relu 128 relu drop.3 64 relu bn" --set optimizer=adamax --set eps=1e-7 '
    "--set lr=5e-4 --set weight_decay=0 --set batch_size=250 --set epochs=$epochs --set schedule=none --scale none "
    "--val last:0.1 --test",
    # How E1, E2 and E3 are trained.
    "e_scratch": "--weights none --normalize unit --optimizer adamax --eps 1e-7 --weight-decay 0 --batch-size 32 "
    "--epochs $epochs --schedule none --val last:0.1 --test",
    # B1, which stands beside B2 as well.
    "b1": "featx compare $data --heads none --scratch cnn25 --set cnn25.shots=1500 --set cnn25.epochs=$epochs "
    "--set cnn25.resize=squash --val 0.3 -o $out/b",
}

SYSTEMS = {
    "A": System(
        "VGG-19 on CIFAR-10, trained end to end",
        "train 99.22 %, validation 85.41 %",
        """
        featx finetune $data --backbone vgg19 --weights $weights --image-size 32
          --head-layers "1024 bn relu drop.5 512 bn relu drop.5" --init-head none --augment flip,rotate=2,zoom=0.1
          --optimizer adam --lr 1e-3 --weight-decay 0 --batch-size 100 --epochs $epochs
          --schedule plateau --factor 0.01 --patience 3 --min-lr 1e-5 --monitor val_accuracy
          --val 0.1 --test -o $out/a.featx
        featx report $out/a.featx -o $out/a.html --figures $out/a
        """,
        epochs=50,
        note="Widths of the dense layers, their dropout, the first rate and the epochs are not published.",
    ),
    "B1": System(
        "25-layer CNN on ten animals, from scratch",
        "train 76.26 %, validation 55.57 %",
        """
        $b1
        featx report $out/b -o $out/b1.html --figures $out/b1
        """,
        note="Batches of 128 and a weight decay of 1e-4 are MATLAB's defaults; 3 of 10 images validate.",
    ),
    "B2": System(
        "AlexNet on ten animals, fine-tuned, beside B1",
        "train 96.71 %, validation 85.27 %",
        """
        $b1 --backbones alexnet --weights $weights --finetune --ft-shots 500 --ft-image-size 227 --ft-resize squash
          --ft-layer relu7 --ft-head-layers drop.5 --ft-init-head none --ft-optimizer sgd --ft-momentum 0.9
          --ft-lr 1e-4 --ft-head-lr-mult 20 --ft-weight-decay 1e-4 --ft-schedule none --ft-batch-size 10
          --ft-epochs $ft_epochs
        featx report $out/b -o $out/b.html --figures $out/b2
        """,
        note="torchvision's one-tower AlexNet, with dropout before its dense layers. Batches of 10 and 20 times the "
        "rate for the new layer are those of MATLAB's example. B1's row is kept if it was run.",
    ),
    "C": System(
        "VGG-16, frozen, with a convolutional top on three traffic-light states",
        "not published",
        """
        featx fit $data --backbone vgg16 --weights $weights --image-size 224 --resize squash
          --layer block5_pool --pool none --views 2 --augment flip --val 0.1
          --head conv --set "layers=conv32 relu max conv64 relu max flat 128 relu"
          --set optimizer=adam --set lr=1e-3 --set weight_decay=0 --set schedule=none --set batch_size=32
          --set epochs=$epochs --set early_stopping=true --set monitor=val_accuracy --set min_delta=1e-4
          --set patience=3 --test -o $out/c.featx
        featx report $out/c.featx -o $out/c.html --figures $out/c
        """,
        epochs=50,
        note="Width of the dense layer, rate and batch size are not published. An image and its mirror image go "
        "through the network once, not once an epoch.",
    ),
    "D": System(
        "Inception-ResNet-v2 on 120 dog breeds, to a submission",
        "train 94.49 %, validation 90.23 %",
        """
        featx fit $data/labels.csv --images $data/train --backbone inception_resnet_v2 --weights $weights
          --image-size 331 --resize squash --layer conv_7b_ac --pool none --dtype float16
          --views 2 --augment flip --val 0.15 --head conv --set "layers=bn gap 512 relu drop.5"
          --set optimizer=adam --set lr=1e-3 --set weight_decay=0 --set schedule=none --set batch_size=32
          --set epochs=$epochs --set early_stopping=true --set monitor=val_accuracy --set patience=3
          --memory 4GiB -o $out/d.featx
        featx predict $out/d.featx $data/test --csv $out/submission.csv --format submission
          --sample $data/sample_submission.csv
        featx report $out/d.featx -o $out/d.html --figures $out/d
        """,
        epochs=20,
        note="Width of the dense layer, optimiser and rate are not published. The maps take 5 GB of cache, as float16.",
    ),
    "E1": System(
        "CIFAR-10 from scratch, two convolutions",
        "train 99.1 %, validation 70.66 %; 2,105,066 parameters",
        """
        featx finetune $data --backbone scratch/leaky --lr 0.005 $e_scratch -o $out/e1.featx
        featx report $out/e1.featx -o $out/e1.html --figures $out/e1
        """,
    ),
    "E2": System(
        "CIFAR-10 from scratch, E1 with dropout",
        "train 78.9 %, validation 68.30 %; 2,105,066 parameters",
        """
        featx finetune $data --backbone scratch/leaky-dropout --lr 0.005 $e_scratch -o $out/e2.featx
        featx report $out/e2.featx -o $out/e2.html --figures $out/e2
        """,
    ),
    "E3": System(
        "CIFAR-10 from scratch, four convolutions",
        "train 79.5 %, validation 78.12 %; 1,084,234 parameters",
        """
        featx finetune $data --backbone scratch/leaky-deep --lr 0.001 $e_scratch -o $out/e3.featx
        featx report $out/e3.featx -o $out/e3.html --figures $out/e3
        """,
        epochs=15,
    ),
    "E4": System(
        "CIFAR-10, VGG16 frozen at block3_pool",
        "validation 79.24 %, test 78 %",
        """
        featx fit $data --backbone vgg16 --weights $weights --image-size 32 --normalize unit
          --layer block3_pool --pool flatten $e_head -o $out/e4.featx
        featx evaluate $out/e4.featx
        featx report $out/e4.featx -o $out/e4.html --figures $out/e4
        """,
        note="x/255 is the published recipe; without --normalize unit the pixels are what the weights expect.",
    ),
    "E5": System(
        "CIFAR-10, VGG19 frozen at block5_pool",
        "validation 57 to 60 %",
        """
        featx fit $data --backbone vgg19 --weights $weights --image-size 32 --normalize unit
          --layer block5_pool --pool flatten $e_head -o $out/e5.featx
        featx report $out/e5.featx -o $out/e5.html --figures $out/e5
        """,
        epochs=30,
        note="10 and then 20 epochs, here in one fit: the curves show both.",
    ),
    "E6": System(
        "CIFAR-10, Inception v3",
        "fails at 32×32",
        """
        ! featx extract $data --backbone inception_v3 --weights $weights --image-size 32
        featx fit $data --backbone inception_v3 --weights $weights --image-size 299 --normalize unit
          --pool avg $e_head -o $out/e6.featx
        featx report $out/e6.featx -o $out/e6.html --figures $out/e6
        """,
        note="At 32×32 the error says what is needed; at the network's own 299×299 it works.",
    ),
    "E7": System(
        "CIFAR-10, ResNet50V2 frozen, global max pooling",
        "validation 38.18 %",
        """
        featx fit $data --backbone resnet50v2 --weights $weights --normalize unit --pool max $e_head -o $out/e7.featx
        featx report $out/e7.featx -o $out/e7.html --figures $out/e7
        """,
        note="timm's resnetv2_50, without the 19,008 convolution biases that Keras adds. At the network's own size; "
        "the published number is of 32×32 pixels: --image-size 32.",
    ),
}


def commands(name: str, *, data: str, out: Path, weights: str = "imagenet", epochs: int | None = None) -> list[str]:
    """Return the commands of a system as they are typed.

    Parameters
    ----------
    name : str
        A key of `SYSTEMS`.
    data : str
        Where the images are.
    out : Path
        Folder for models and reports.
    weights : str
        ``none`` where the ImageNet weights cannot be had.
    epochs : int, optional
        Others than published, for a trial.
    """
    system = SYSTEMS[name]
    values = {"data": data, "out": out, "weights": weights}
    values |= {"epochs": epochs or system.epochs, "ft_epochs": epochs or 6}
    text = Template(dedent(system.text).strip()).safe_substitute(WORDS)
    typed = []
    for command in re.split(r"\n(?=\S)", text):
        refused = REFUSED if command.startswith(REFUSED) else ""
        words = [Template(word).substitute(values) for word in shlex.split(command.removeprefix(REFUSED))]
        typed.append(refused + shlex.join(words))
    return typed


def run(command: str) -> int:
    """Run a command and return its exit status: 0 also for one that was refused as it had to be."""
    print(f"\n$ {command}", file=sys.stderr, flush=True)
    code = featx(shlex.split(command.removeprefix(REFUSED))[1:])
    return int(code == 0) if command.startswith(REFUSED) else code


def main(args: list[str] | None = None) -> int:
    """List the systems, or show or run the commands of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", choices=SYSTEMS, metavar="|".join(SYSTEMS))
    parser.add_argument("--data", help="your copy of the images")
    parser.add_argument("--out", type=Path, default=Path("reproduced"), help="folder for models and reports")
    parser.add_argument("--weights", default="imagenet", help="imagenet, or none: random ones, to try the commands")
    parser.add_argument("--epochs", type=int, help="others than published, for a trial")
    parser.add_argument("--print", action="store_true", dest="only_print", help="show the commands, run nothing")
    chosen = parser.parse_args(args)
    if chosen.system is None:
        for name, system in SYSTEMS.items():
            print(f"{name:3} {system.title}: {system.published}\n    {system.note}".rstrip())
        return 0
    if chosen.data is None:
        parser.error(f"{chosen.system} needs --data: your copy of the images")
    typed = commands(chosen.system, data=chosen.data, out=chosen.out, weights=chosen.weights, epochs=chosen.epochs)
    if chosen.only_print:
        print("\n".join(typed))
        return 0
    if chosen.weights == "none":
        print("RANDOM WEIGHTS: what comes out says nothing about the published system.", file=sys.stderr)
    print(f"{SYSTEMS[chosen.system].title}. Published: {SYSTEMS[chosen.system].published}.", file=sys.stderr)
    chosen.out.mkdir(parents=True, exist_ok=True)
    return next((code for command in typed if (code := run(command))), 0)


if __name__ == "__main__":
    sys.exit(main())
