#!/usr/bin/env bash
# Step 5, with a COMBINER that is trained: trains it on top of the base model, which stays as it is, with the settings of
# $CONFIGS and TRAIN_OPTIONS. All GPUs it is shown are used. Started again, it goes on where it was. In the end
# $WORK/training/COMBINER/checkpoint_best.pt is all that decoding needs.
#SBATCH --job-name=knn_mt_train
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need BASE DATA
[[ $COMBINER != vanilla ]] || die "a vanilla combiner has nothing to train: set COMBINER, or tune it with 5_tune.sh"
need TRAIN_K

case $COMBINER in
kernel_smoothed) k=knn_k ;;
*) k=knn_max_k ;;
esac
train "$TRAINED" fairseq-hydra-train --config-dir "$CONFIGS" --config-name "$COMBINER" \
    "$(given common.user_dir "$USER_DIR")" "$(given checkpoint.finetune_from_model "$BASE")" \
    "$(given task.data "$DATA")" "task.source_lang=$SOURCE" "task.target_lang=$TARGET" \
    "$(given task.knn_datastore_path "$STORE")" "++task.knn_nprobe=$NPROBE" "task.$k=$TRAIN_K" \
    ${NOISE_BETA:+"task.knn_noise_beta=$NOISE_BETA"} "$(given checkpoint.save_dir "$TRAINED")" "${TRAIN_OPTIONS[@]}"
