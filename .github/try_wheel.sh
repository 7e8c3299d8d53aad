#!/usr/bin/env bash
# Installs a built wheel in an empty environment and runs the whole line there: try_wheel.sh dist/featx-….whl
set -euo pipefail
wheel=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/pip install -q "$wheel"
environment/bin/featx --version
environment/bin/featx demo
