#!/usr/bin/env bash
# All steps: submitted to Slurm, each waiting for the one before it; or, where there is no sbatch, run here and now.
#
#   ./submit.sh
#   ./submit.sh --dry-run    (only shows what would be submitted)
#   DATASET=law ./submit.sh
#   SETTINGS=my_settings.sh ./submit.sh
#   CLUSTER=my_cluster.sh ./submit.sh
#
# Again after a failure: what is done is skipped. The last job leaves the table in $WORK/$SPLIT.txt.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need BASE DATA BREAK LAMBDA # now rather than hours later

export JOB_SCRIPTS=$here SETTINGS DATASET

[[ -z $TEXT ]] || step 1_binarise.sh
array "$BUILD_TASKS" 2_build.sh "${MODEL_JOBS[@]}"
step 3_merge.sh
if ((INDEX_TASKS > 1)); then
    step 4_centroids.sh "${INDEX_JOB[@]}"
    array "$INDEX_TASKS" 4_fill.sh "${INDEX_JOB[@]}"
fi
step 4_index.sh "${INDEX_JOB[@]}"
[[ -z $CLUSTERS ]] || step 5_cluster.sh "${INDEX_JOB[@]}"
array "$EVALUATE_TASKS" 6_evaluate.sh "${MODEL_JOBS[@]}"
step 7_table.sh
