#!/usr/bin/env bash
# The whole way once, on synthetic data: phantom, shards, training on 2 workers, evaluation, predictions.
# Called by `make demo`, which builds the binaries before. What is there already is kept: a run that
# was interrupted goes on, a finished one is not repeated. `rm -r demo` starts afresh.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/release
workers=2

step() { printf '\n== %s\n' "$1"; }

for program in jcs jcs-launch data-shards; do
  [ -x "$bin/$program" ] || { echo "demo: no $bin/$program; run 'make demo'" >&2; exit 1; }
done

step "data: demo/phantom"
if [ -e demo/phantom/eval.txt ]; then
  echo "it is there already"
else
  mkdir -p demo
  "$bin/data-shards" phantom demo/phantom --patients 24 --size 128
fi

step "shards: demo/shards"
"$bin/data-shards" pack demo/phantom demo/shards
"$bin/data-shards" info demo/shards

step "training: configs/demo.toml on $workers workers"
"$bin/jcs-launch" --nproc-per-node "$workers" configs/demo.toml

step "evaluation"
"$bin/jcs-launch" --nproc-per-node "$workers" eval configs/demo.toml --weights demo/run --json demo/eval.json

step "predictions"
# Every fourth image of the evaluation list, six of them: of several patients.
mapfile -t images < <(awk 'NF { if (n++ % 4 == 1 && m++ < 6) print "demo/phantom/" $1 }' demo/phantom/eval.txt)
"$bin/jcs" predict --weights demo/run --out demo/predictions "${images[@]}"

cat <<END

== done
  data          demo/phantom/            (images, masks, labels.csv, train.txt, eval.txt)
  shards        demo/shards/             ($bin/data-shards verify demo/shards)
  run           demo/run/                (config.resolved.toml, metrics.jsonl, summary.json, logs/)
  checkpoints   demo/run/checkpoints/    ($bin/jcs inspect demo/run)
  curves        demo/run/tensorboard/    (tensorboard --logdir demo/run/tensorboard)
  evaluation    demo/eval.json
  predictions   demo/predictions/report.html
END
