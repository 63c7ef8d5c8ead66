#!/usr/bin/env bash
# Step 3: checks that all shards are there (it names those that are not) and makes one datastore of them.
#SBATCH --job-name=knn_lm_merge
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

fairseq-knn merge "$STORE"
