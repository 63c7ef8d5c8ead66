# shellcheck shell=bash disable=SC2034  # read by functions.sh
# job_scripts/knn_mt on the toy domain: $TOY is its folder, $PLACE where everything goes.
source "$JOB_SCRIPTS/settings.sh"

BASE=$TOY/base.pt
DATA=$TOY/bin-domain
REFERENCE=$TOY/domain.test.en
WORK=$PLACE/work
TEXT_OPTIONS=()
BUILD_MAX_TOKENS=300
DECODE_MAX_TOKENS=300
MODEL_OPTIONS=(--cpu --num-workers 0 --knn-shard-sentences 100)
TRAIN_OPTIONS=(common.cpu=true dataset.num_workers=0 dataset.batch_size=8 'optimization.lr=[0.01]'
    optimization.max_update=30)
BUILD_TASKS=2
INDEX_TASKS=2
DECODE_TASKS=2
