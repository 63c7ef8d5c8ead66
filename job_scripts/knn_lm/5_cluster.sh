#!/usr/bin/env bash
# Step 5, where CLUSTERS is not empty: divides the entries into clusters, whose members share their pointers. Started
# again, it goes on where it was.
#SBATCH --job-name=knn_lm_cluster
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need CLUSTERS

resumable fairseq-knn cluster "$STORE" --method "$CLUSTER_METHOD" --num-clusters "$CLUSTERS" \
    --sample "$CLUSTER_SAMPLE" --name "$CLUSTER_NAME"
