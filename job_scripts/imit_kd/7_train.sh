#!/usr/bin/env bash
# Step 7: trains a student for every one of VARIANTS, with the settings of $CONFIGS/student.yaml and TRAIN_OPTIONS. An
# array: its tasks share the variants. Started again, each goes on where it was. In the end
# $WORK/training/VARIANT/checkpoint_best.pt is all that decoding needs.
#SBATCH --job-name=imit_kd_train
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
number=0
for variant in "${VARIANTS[@]}"; do
    ((number++ % tasks == task)) || continue
    method=$(method_of "$variant")
    text=$(text_of "$variant")
    config=(--config-name student "method=$method" "dataset.train_subset=train${text:+_$text}")
    case $method in
    nll) criterion=() ;;
    imit_kd_ast)
        need SPEECH_EXPERT
        criterion=("$(given criterion.expert "$SPEECH_EXPERT")"
            "$(given criterion.expert_vocab_tgt "$DATA/dict.$TARGET.txt")")
        ;;
    *)
        need EXPERT DICTIONARIES
        criterion=("$(given criterion.expert "$EXPERT")"
            "$(given criterion.expert_vocab_src "$DICTIONARIES/dict.$SOURCE.txt")"
            "$(given criterion.expert_vocab_tgt "$DICTIONARIES/dict.$TARGET.txt")")
        ;;
    esac
    if [[ $method == "$CASCADE_STUDENT" ]]; then
        config=(--config-name cascade_student) options=("${CASCADE_OPTIONS[@]}")
    else
        need_asr
        config+=("$(given model.load_pretrained_encoder_from "$ASR_CHECKPOINT")") options=("${TRAIN_OPTIONS[@]}")
    fi
    train "$TRAININGS/$variant" fairseq-hydra-train --config-dir "$CONFIGS" "${config[@]}" \
        "$(given common.user_dir "$USER_DIR")" "$(given task.data "$DATA")" "${criterion[@]}" \
        "$(given checkpoint.save_dir "$TRAININGS/$variant")" "${options[@]}"
done
