#!/usr/bin/env bash
# Step 2: trains into $WORK/model. Started again, it goes on where it was; a training that is finished is left alone.
#SBATCH --job-name=recipe_train
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

train "$MODEL" fairseq-knn recipe train "${recipe[@]}"
