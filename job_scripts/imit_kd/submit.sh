#!/usr/bin/env bash
# All steps: submitted to Slurm, each waiting for the one before it; or, where there is no sbatch, run here and now.
#
#   ./submit.sh
#   ./submit.sh --dry-run    (only shows what would be submitted)
#   CORPUS=covost2_en_de ./submit.sh
#   SETTINGS=my_settings.sh ./submit.sh
#   CLUSTER=my_cluster.sh ./submit.sh
#
# Again after a failure: what is done is skipped. The last job leaves the table in $WORK/scores.txt.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need SPEECH EXPERT DICTIONARIES CODES # now rather than hours later
[[ " ${VARIANTS[*]} " != *' imit_kd_ast'* ]] || need SPEECH_EXPERT

export JOB_SCRIPTS=$here SETTINGS CORPUS

step 1_data.sh
[[ -n $ASR_MODEL ]] || step 2_asr.sh "${TRAIN_JOBS[@]}"
if ((${#asr_sets[@]})); then
    array "$GENERATE_TASKS" 3_transcribe.sh "${MODEL_JOBS[@]}"
    step 4_transcripts.sh
fi
if ((${#expert_sets[@]} + ${#cascade_sets[@]})); then
    array "$GENERATE_TASKS" 5_translate.sh "${MODEL_JOBS[@]}"
    step 6_translations.sh
fi
array "${#VARIANTS[@]}" 7_train.sh "${TRAIN_JOBS[@]}"
array "$DECODE_TASKS" 8_decode.sh "${MODEL_JOBS[@]}"
step 9_score.sh
