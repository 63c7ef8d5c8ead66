#!/usr/bin/env bash
# All steps: submitted to Slurm, each waiting for the one before it; or, where there is no sbatch, run here and now.
#
#   ./submit.sh
#   ./submit.sh --dry-run    (only shows what would be submitted)
#   GROUP=diverse DIRECTION=o2m ./submit.sh
#   SETTINGS=my_settings.sh ./submit.sh
#   CLUSTER=my_cluster.sh ./submit.sh
#
# Again after a failure: what is done is skipped. The last job leaves the table in $WORK/scores.txt.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need DATA REFERENCES # now rather than hours later

export JOB_SCRIPTS=$here SETTINGS GROUP DIRECTION

[[ -z $TEXT ]] || step 1_binarise.sh
array "${#VARIANTS[@]}" 2_train.sh "${TRAIN_JOBS[@]}"
array "$TRANSLATE_TASKS" 3_translate.sh "${MODEL_JOBS[@]}"
step 4_score.sh
