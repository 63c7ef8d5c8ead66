# shellcheck shell=bash
# What the scripts of this folder share; they source it and have set $here, this folder.

# shellcheck disable=SC2154 source-path=SCRIPTDIR source=../functions.sh
source "$here/../functions.sh"
# shellcheck disable=SC2034  # for the scripts
STORE=$WORK/datastore TUNED=$WORK/tuned.txt TRAINED=$WORK/training/$COMBINER CONFIGS=${CONFIGS:-$here/../../configs/knn_mt}
# What translations and scores are called: those of all combiners stand side by side.
# shellcheck disable=SC2034
case $COMBINER in
vanilla) SYSTEM=knn SCORES=$WORK/scores.txt ;;
adaptive | kernel_smoothed | robust) SYSTEM=$COMBINER SCORES=$WORK/scores.$COMBINER.txt ;;
*) die "COMBINER is '$COMBINER', but must be vanilla, adaptive, kernel_smoothed or robust: correct it in $SETTINGS" ;;
esac

# fairseq-generate takes these as plain data sharding, for building and for decoding; no process group is made.
# shellcheck disable=SC2034
SHARE=(--distributed-world-size "$tasks" --distributed-rank "$task")
TASK=("$DATA" --source-lang "$SOURCE" --target-lang "$TARGET" --user-dir "$USER_DIR" --task translation_knn
    --no-progress-bar)
# shellcheck disable=SC2034
MODEL=("${TASK[@]}" --path "$BASE")
