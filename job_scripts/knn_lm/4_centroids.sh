#!/usr/bin/env bash
# Step 4, before INDEX_TASKS: trains the search index, which they add keys to.
#SBATCH --job-name=knn_lm_centroids
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

resumable fairseq-knn build-index "$STORE" "${INDEX_OPTIONS[@]}" --train-only
