# shellcheck shell=bash
# What the scripts of this folder share; they source it and have set $here, this folder.

# shellcheck disable=SC2154 source-path=SCRIPTDIR source=../functions.sh
source "$here/../functions.sh"
# shellcheck disable=SC2034  # for the scripts
STORE=$WORK/datastore RESULTS=$WORK/$SPLIT
# fairseq-eval-lm takes these as plain data sharding; no process group is made.
# shellcheck disable=SC2034
SHARE=(--num-shards "$tasks" --shard-id "$task")
TASK=("$DATA" --user-dir "$USER_DIR" --task language_modeling_knn --no-progress-bar)
# shellcheck disable=SC2034
MODEL=("${TASK[@]}" --path "$BASE")

# What 6_evaluate.sh measures, in the order of the table: names of files in $RESULTS.
# shellcheck disable=SC2034
systems() {
    local min
    echo base
    echo knn
    for min in "${MIN_KNNS[@]}"; do
        echo "retomaton-$min"
        [[ -z $CLUSTERS ]] || echo "retomaton-$CLUSTER_NAME-$min"
    done
}
