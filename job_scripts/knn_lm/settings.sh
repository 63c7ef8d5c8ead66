# shellcheck shell=bash disable=SC2034  # read by common.sh
#
# The settings of all scripts of this folder: kNN-LM and RetoMaton on WikiText-103 and Law-MT. Fill in the paths; what
# follows them is published, or works as it is.
#
# Another set:            DATASET=law ./submit.sh
# Another settings file:  SETTINGS=my_settings.sh ./submit.sh     (a copy of this one)
# docs/jobs.md and docs/knn-lm.md explain the rest.

# wikitext103: a model of the text itself. law: a news model (wmt19.en) on law. law_finetuned: the same, fine-tuned on law
# (configs/knn_lm/law_fine_tune.yaml).
DATASET=${DATASET:-wikitext103}

# --- Paths. They may contain $DATASET. --------------------------------------------------------------------------

BASE=         # checkpoint of the language model, such as wt103_checkpoint_best.pt
DATA=         # the text, binarised with the dictionary of the model; 1_binarise.sh can make it
WORK=         # where the datastore and the results go; another directory for each set

# Only where DATA is still to be made:
TEXT=         # directory with train, valid and test, split into the pieces the model knows; names as in FILES
FILES=(wiki.train.tokens wiki.valid.tokens wiki.test.tokens)
DICTIONARY=   # dict.txt of the model; empty: made from the training text, for a model that is still to be trained

# --- What was published for these models (Alon et al. 2022 and their code's README) -------------------------------

# A block of BLOCK tokens, of which the first CONTEXT are context only: read, not scored or stored (stock fairseq-eval-lm's
# --tokens-per-sample and --context-window). The forks count the context on top: their 1536 + 1536 is 3072 with 1536 here.
case $DATASET in
wikitext103)
    BUILD_BREAK=none BUILD_BLOCK=3072 BUILD_CONTEXT=1536
    BREAK=complete BLOCK=3072 CONTEXT=2560 TEXT_OPTIONS=()
    LAMBDA=0.25 CLUSTERS=1000000
    ;;
law | law_finetuned)
    BUILD_BREAK=eos BUILD_BLOCK=512 BUILD_CONTEXT=0
    BREAK=eos BLOCK=512 CONTEXT=0 TEXT_OPTIONS=(--remove-bpe) # the perplexity of words
    case $DATASET in
    # Far from what the model was trained on: the neighbours are to be relied on more than the model. Fine-tuned, the other
    # way round, and the paper's best figures are those without clusters.
    law) LAMBDA=0.9 CLUSTERS=200000 ;;
    law_finetuned) LAMBDA=0.25 CLUSTERS='' ;;
    esac
    ;;
# Nothing is published: write it here.
*) BUILD_BREAK='' BUILD_BLOCK='' BUILD_CONTEXT='' BREAK='' BLOCK='' CONTEXT='' TEXT_OPTIONS=() LAMBDA='' CLUSTERS='' ;;
esac
K=1024
TEMPERATURE=1
NPROBE=32         # lists of the index that are searched
MAX_KNNS=1024     # entries pointed to, with those of their clusters, at most
# With fewer pointers than these there is a search: 1 saves the most searches; 9999999 searches at every step, for the
# lowest perplexity. Each is measured, without clusters and (if CLUSTERS is not empty) with them.
MIN_KNNS=(1 100 9999999)
CLUSTER_METHOD=kmeans
CLUSTER_SAMPLE=40000000  # keys the centroids are learned from, at most
CLUSTER_NAME=kmeans

# --- Machine ----------------------------------------------------------------------------------------------------

SPLIT=valid       # what is measured: valid, or test
# Tokens in a batch: as many as fit. Must stay the same while a datastore is built: they move the last bits of keys.
BUILD_MAX_TOKENS=3072
MAX_TOKENS=3072
SOFTMAX_BATCH=1024000  # rows x vocabulary entries that are normalised at once
# More options for every run of fairseq-eval-lm; the same rule. On GPUs: (--fp16)
MODEL_OPTIONS=()

# Options of `fairseq-knn build-index`. For an index larger than memory: (--on-disk)
INDEX_OPTIONS=()

# --- Slurm; without it, one process does it all -------------------------------------------------------------------

BUILD_TASKS=4     # array tasks, each with a model of its own; more than there are shards idle
INDEX_TASKS=1     # more, for a large datastore: each adds a part of the keys to the index
EVALUATE_TASKS=4  # each measures every fourth system
MAX_RESTARTS=20   # how often a job that comes to its time limit puts itself into the queue again

# Options of sbatch. SBATCH_PARTITION, SBATCH_ACCOUNT and the like in the environment work too.
EVERY_JOB=()      # (--partition=NAME --account=NAME)
MODEL_JOBS=()     # build, evaluate: (--gres=gpu:1 --cpus-per-task=8 --mem=64G --time=8:00:00)
INDEX_JOB=()      # index, clusters: (--cpus-per-task=32 --mem=256G --time=24:00:00)
