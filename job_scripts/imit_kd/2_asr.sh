#!/usr/bin/env bash
# Step 2, where there is no ASR_MODEL: trains one for speech recognition, with the settings of $CONFIGS/asr.yaml and
# ASR_OPTIONS. Started again, it goes on where it was. In the end there is $WORK/training/asr/checkpoint_best.pt.
#SBATCH --job-name=imit_kd_asr
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need SPEECH
[[ -z $ASR_MODEL ]] || die "nothing is to be trained: there is an ASR_MODEL in $SETTINGS"

train "$TRAININGS/asr" fairseq-hydra-train --config-dir "$CONFIGS" --config-name asr "corpus=$CORPUS" \
    "$(given common.user_dir "$USER_DIR")" "$(given task.data "$SPEECH")" "$(given task.config_yaml "$ASR_CONFIG")" \
    "$(given dataset.train_subset "train$ASR")" "$(given dataset.valid_subset "dev$ASR")" \
    "$(given checkpoint.save_dir "$TRAININGS/asr")" "${ASR_OPTIONS[@]}"
