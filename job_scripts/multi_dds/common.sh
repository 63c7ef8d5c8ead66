# shellcheck shell=bash
# What the scripts of this folder share; they source it and have set $here, this folder.

# shellcheck disable=SC2154 source-path=SCRIPTDIR source=../functions.sh
source "$here/../functions.sh"
need LANGUAGES VARIANTS
# shellcheck disable=SC2034  # for the scripts
TRAININGS=$WORK/training TRANSLATIONS=$WORK/translations CONFIGS=${CONFIGS:-$here/../../configs/multi_dds}

# shellcheck disable=SC2034
case $DIRECTION in
m2o) TAG='' ;;
o2m) TAG=tgt ;; # at the head of the source: the language that is wanted
*) die "DIRECTION is '$DIRECTION', but must be m2o or o2m: correct it in $SETTINGS" ;;
esac

# Sets source and target of the pair of a language.
pair() {
    source=$1 target=$ENGLISH
    [[ $DIRECTION == m2o ]] || source=$ENGLISH target=$1
}

# Of the training. Decoding, too, needs all of them: for the tags in the dictionaries.
PAIRS=''
for language in "${LANGUAGES[@]}"; do
    pair "$language"
    PAIRS+=${PAIRS:+,}$source-$target
done
