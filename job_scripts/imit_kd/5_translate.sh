#!/usr/bin/env bash
# Step 5, for the cascade and for variants that learn from translations: the expert translates transcripts, those of the
# corpus and those of the ASR model. An array: its tasks share the sets, the training set in TRAIN_PARTS parts. Started
# again, it skips what is there.
#SBATCH --job-name=imit_kd_translate
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need EXPERT

describe() {
    local text=$DATA/text/$2.bin
    [[ $1 == expert ]] || text=$TRANSCRIPTS/$2.bin
    describe_text "$text" "$EXPERT"
}
generate expert "${expert_sets[@]}"
generate cascade "${cascade_sets[@]}"
