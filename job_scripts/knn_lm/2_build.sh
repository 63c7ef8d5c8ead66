#!/usr/bin/env bash
# Step 2: the datastore, from the training split. An array: each task writes its shards, together they give the same
# bytes as one process. Killed or out of time? The same command again writes what is missing.
#SBATCH --job-name=knn_lm_build
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need BASE DATA BUILD_BREAK BUILD_BLOCK BUILD_CONTEXT

if [[ -e $STORE/manifest.json ]]; then
    echo "$STORE is finished already" # one of another model or other text would be refused later, by name
    exit
fi
resumable fairseq-eval-lm "${MODEL[@]}" "${SHARE[@]}" --gen-subset train \
    --knn-mode build_datastore --knn-datastore-path "$STORE" \
    --sample-break-mode "$BUILD_BREAK" --tokens-per-sample "$BUILD_BLOCK" --context-window "$BUILD_CONTEXT" \
    --max-tokens "$BUILD_MAX_TOKENS" --softmax-batch "$SOFTMAX_BATCH" "${MODEL_OPTIONS[@]}"
