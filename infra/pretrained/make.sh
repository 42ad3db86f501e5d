#!/bin/sh
# Makes evaluation/pretrained, the model that comes with spikeline: about.md says what it is.
#
#   infra/pretrained/make.sh CORPUS TEXT [RUNS]
#
# CORPUS: LibriSpeech's layout with train-mini, train-more, dev-mini and test-mini; TEXT: sentences
# for the language model, one a line; RUNS: results, those that are finished are found again.
set -eu
corpus=$1 text=$2 runs=${3:-runs}
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../evaluation/pretrained
run="--recipe mini-librispeech --runs $runs --json"
location() { python3 -c 'import json, sys; print(json.load(sys.stdin)["location"])'; }
trained() { python3 -c '
import json, sys
(model,) = json.load(sys.stdin)["models"].values()
print(model["location"])'; }

features=$(spikeline featurize $run --corpus "$corpus" \
  --set featurize.splits.train=train-mini,train-more \
  --set featurize.num_bins=40 --set featurize.stack=1 --set featurize.stride=1 | location)
aligned=$(spikeline align $run --features "$features" \
  --set align.targets.num_senones=1000 --set align.targets.states_per_phone=3 | location)
model=$(spikeline train $run --features "$aligned" --set models=v2 --set 'seeds=[0]' \
  --set train.v2.model.hidden_size=320 --set train.v2.model.dropout=0.1 \
  --set train.v2.density.weight=10 --set train.v2.density.targets=0.05 \
  --set train.target_delay=5 --set train.optimizer.learning_rate=3e-3 \
  --set 'train.curriculum=[{"num_epochs": 8, "chunk_frames": 300}]' | trained)
# A small graph: pairs of the 8,000 most frequent words.
scored=$(spikeline evaluate $run --model "$model" --features "$aligned" \
  --set evaluate.words.text="$text" --set evaluate.words.vocabulary=transcripts \
  --set evaluate.words.max_words=8000 --set evaluate.words.ngram_order=2 \
  --set evaluate.words.ngram_min_count=20 | location)
spikeline export --format folder --int8 --model "$model" --evaluation "$scored" \
  --about "$here/about.md" --out "$out"
