#!/usr/bin/env bash
# Step 4: builds the search index, which has to prove its recall; with INDEX_TASKS it merges what they built. Started
# again, it goes on where it was.
#SBATCH --job-name=knn_mt_index
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

resumable fairseq-knn build-index "$STORE" "${INDEX_OPTIONS[@]}" --knn-k "${K:-8}" --knn-nprobe "$NPROBE"
