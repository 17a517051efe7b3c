#!/usr/bin/env bash
# The regime map in pieces: for each replicate three students of its own, then each regime's 60 runs, published as they come.
# Some twenty minutes a piece on two quiet cores. Give the replicates' numbers (default: 1 to 5); finished runs are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
work=${WORK:-.cache/regime_map}
declare -A student=([tiny_cpu]=student [tiny_latent]=student_latent [tiny_style]=student_style)

for replicate in "${@:-1 2 3 4 5}"; do for k in $replicate; do
  # longer than the shipped recipe (700 base steps), with which students of some seeds come out much weaker than others
  "$python" -m harness.tiny --steps-scale 1.4 --student-seed "$k" --out "$work/students"
  for regime in tiny_cpu tiny_latent tiny_style; do
    name=${regime}_student$k
    "$python" -m harness.run experiment=regime_map setting=$regime setting.name="$name" seed="$k" \
      setting.student="$work/students/student_seed$k/${student[$regime]}" results_dir="$work" >/dev/null || [ $? -eq 1 ]  # 1: a run failed, which is a row
    for folder in "$work/$name"-????????; do
      "$python" -m harness.leaderboard "$folder" --publish "results/small_scale/$(basename "$folder")" >/dev/null
    done
    "$python" -m harness.regime_map results/small_scale/*/ --output results/small_scale/regime_map.md >/dev/null
  done
done; done
