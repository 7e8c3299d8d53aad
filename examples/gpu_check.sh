#!/usr/bin/env bash
# Everything that wants to be seen on a real GPU, in at most 8 minutes, on a bare machine that has one:
#
#     examples/gpu_check.sh                  # gpu_check.json and a table on the screen
#     examples/gpu_check.sh --device cpu     # tries this script itself, on tiny sizes, without a GPU
#
# PYTHON=… names another interpreter; it needs torch, featx and pytest. All options: python examples/gpu_check.py --help
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
"$python" -c "import torch, pytest" || { echo "PYTHON=… must name a Python with torch, pytest and what featx needs."; exit 1; }
exec env PYTHONPATH="$PWD" "$python" examples/gpu_check.py "$@"
