# shellcheck shell=bash disable=SC2034  # read by common.sh
#
# The settings of all scripts of this folder: a translation model from a file of sentence pairs. Fill in the paths; what
# follows them works as it is.
#
# Another recipe:         RECIPE=my_recipe.yaml ./submit.sh
# Another settings file:  SETTINGS=my_settings.sh ./submit.sh     (a copy of this one)
# docs/jobs.md explains the rest, docs/recipe.md what recipes are.

# What differs from the settings that `fairseq-knn recipe help` shows; empty: configs/recipe/tatoeba.yaml.
RECIPE=${RECIPE:-}

# --- Paths --------------------------------------------------------------------------------------------------------

WORK=         # where text, tokenizer, binarised data (data/), checkpoints and scores (model/) go; another one for each recipe
FILE=         # the sentence pairs, such as Tatoeba's fra-eng.zip; none if the recipe names them

# --- Settings that are others than the recipe's -------------------------------------------------------------------

# (training.max_update=100000 model.dim=256 device.fp16=true)
OPTIONS=()

# --- Slurm; without it, one process does it all -------------------------------------------------------------------

MAX_RESTARTS=20    # how often a job that comes to its time limit puts itself into the queue again

# Options of sbatch. SBATCH_PARTITION, SBATCH_ACCOUNT and the like in the environment work too.
EVERY_JOB=()       # (--partition=NAME --account=NAME)
DATA_JOB=()        # no GPU: (--cpus-per-task=8 --mem=16G --time=2:00:00)
TRAIN_JOB=()       # on one node, all of whose GPUs take part: (--gres=gpu:1 --cpus-per-task=4 --mem=15G --time=8:00:00)
MODEL_JOBS=()      # evaluate: (--gres=gpu:1 --cpus-per-task=4 --mem=15G --time=1:00:00)
