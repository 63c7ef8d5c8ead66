#!/usr/bin/env bash
# All steps: submitted to Slurm, each waiting for the one before it; or, where there is no sbatch, run here and now.
#
#   ./submit.sh
#   ./submit.sh --dry-run    (only shows what would be submitted)
#   DOMAIN=koran ./submit.sh
#   COMBINER=adaptive ./submit.sh
#   SETTINGS=my_settings.sh ./submit.sh
#   CLUSTER=my_cluster.sh ./submit.sh
#
# Again after a failure: what is done is skipped. The last job leaves the scores in $WORK/scores.txt, with a combiner
# that is trained in $WORK/scores.COMBINER.txt.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need BASE DATA REFERENCE # now rather than hours later
[[ $COMBINER == vanilla ]] || need TRAIN_K

export JOB_SCRIPTS=$here SETTINGS DOMAIN COMBINER

[[ -z $TEXT ]] || step 1_binarise.sh
array "$BUILD_TASKS" 2_build.sh "${MODEL_JOBS[@]}"
step 3_merge.sh
if ((INDEX_TASKS > 1)); then
    step 4_centroids.sh "${INDEX_JOB[@]}"
    array "$INDEX_TASKS" 4_fill.sh "${INDEX_JOB[@]}"
fi
step 4_index.sh "${INDEX_JOB[@]}"
if [[ $COMBINER != vanilla ]]; then
    step 5_train.sh "${TRAIN_JOB[@]}"
elif [[ $TUNE == yes ]]; then
    step 5_tune.sh "${MODEL_JOBS[@]}"
fi
array "$DECODE_TASKS" 6_decode.sh "${MODEL_JOBS[@]}"
step 7_score.sh
