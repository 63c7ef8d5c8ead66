#!/usr/bin/env bash
# All steps: submitted to Slurm, each waiting for the one before it; or, where there is no sbatch, run here and now.
#
#   ./submit.sh
#   ./submit.sh --dry-run    (only shows what would be submitted)
#   RECIPE=my_recipe.yaml ./submit.sh
#   SETTINGS=my_settings.sh ./submit.sh
#   CLUSTER=my_cluster.sh ./submit.sh
#
# Again after a failure: what is done is skipped. The last job leaves BLEU and chrF in $WORK/model/evaluation.json.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

export JOB_SCRIPTS=$here SETTINGS RECIPE

step 1_data.sh "${DATA_JOB[@]}"
step 2_train.sh "${TRAIN_JOB[@]}"
step 3_evaluate.sh "${MODEL_JOBS[@]}"
