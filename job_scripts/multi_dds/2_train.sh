#!/usr/bin/env bash
# Step 2: trains a model with every way of sampling in VARIANTS, with the settings of $CONFIGS and TRAIN_OPTIONS. An array:
# its tasks share the variants. Started again, each goes on where it was. In the end
# $WORK/training/VARIANT/checkpoint_best.pt is all that decoding needs; hydra_train.log beside it has the probabilities.
#SBATCH --job-name=multi_dds_train
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need DATA

number=0
for variant in "${VARIANTS[@]}"; do
    ((number++ % tasks == task)) || continue
    train "$TRAININGS/$variant" fairseq-hydra-train --config-dir "$CONFIGS" --config-name ted8 "sampling=$variant" \
        "$(given common.user_dir "$USER_DIR")" "$(given task.data "$DATA")" "$(given task.lang_pairs "$PAIRS")" \
        ${TAG:+"++task.encoder_langtok=$TAG"} "$(given checkpoint.save_dir "$TRAININGS/$variant")" "${TRAIN_OPTIONS[@]}"
done
