#!/usr/bin/env bash
# Step 5, with COMBINER=vanilla and TUNE=yes: k, lambda and temperature of the lowest perplexity on the validation split.
# The whole grid goes to $WORK/tuned.json, the best flags to $WORK/tuned.txt.
#SBATCH --job-name=knn_mt_tune
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need BASE DATA

fairseq-knn tune "${MODEL[@]}" --gen-subset valid --max-tokens "$BUILD_MAX_TOKENS" \
    --knn-datastore-path "$STORE" --knn-nprobe "$NPROBE" --output "$WORK/tuned.json" "${MODEL_OPTIONS[@]}" |
    tee "$WORK/tune.log"
sed -n 's/^best: //p' "$WORK/tune.log" >"$TUNED.partial"
mv "$TUNED.partial" "$TUNED"
