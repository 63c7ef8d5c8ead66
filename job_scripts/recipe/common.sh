# shellcheck shell=bash
# What the scripts of this folder share; they source it and have set $here, this folder.

# shellcheck disable=SC2154 source-path=SCRIPTDIR source=../functions.sh
source "$here/../functions.sh"
RECIPE=${RECIPE:-$here/../../configs/recipe/tatoeba.yaml}
[[ -f $RECIPE ]] || die "there is no recipe $RECIPE, which RECIPE names"
RECIPE=$(realpath "$RECIPE")
# shellcheck disable=SC2034  # for the scripts
MODEL=$WORK/model

# Where everything goes counts whatever the recipe says, so it comes last.
recipe=("$RECIPE" ${FILE:+"$(given pairs.file "$FILE")"} "${OPTIONS[@]}"
    "$(given pairs.directory "$WORK/data")" "$(given training.save_dir "$MODEL")")
