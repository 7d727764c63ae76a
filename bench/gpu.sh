#!/usr/bin/env bash
# Everything of this project that needs a GPU, in one command (docs/gpu.md):
#
#     bench/gpu.sh pack                              here, with network: what has to travel, into cache/gpu
#     bench/gpu.sh tests=150 throughput=150           there, call 1: sections with their seconds, in this order
#     bench/gpu.sh throughput=110 study=230          there, call 2: goes on behind what is measured
#     bench/gpu.sh bring gpu.tar.xz                  here: into results/
#
# OUT=DIR     where gpu.tar.xz is written, anew after every cell; default STATE, which is outputs/gpu
# PACK=DIR    what travelled, and gpu.tar.xz of an earlier call to go on from; default cache/gpu
# PYTHON=...  default: python3 where it has torch, else .venv/bin/python
# TINY=1 DEVICE=cpu   a small form without a card, to try the command
set -uo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
[ $# -gt 0 ] || usage

if [ -z "${PYTHON:-}" ]; then
    PYTHON=.venv/bin/python
    python3 -c 'import torch' 2>/dev/null && PYTHON=python3
fi
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
travelled=${PACK:-cache/gpu}
state=${STATE:-outputs/gpu}
outgoing=${OUT:-$state}

case $1 in
    pack | bring | compare) exec "$PYTHON" -m bench.gpu "$@" ;;
esac

if [ -f "$travelled/SHA256SUMS" ]; then
    (cd "$travelled" && sha256sum --quiet -c SHA256SUMS) || exit 2
    commit=$(cat "$travelled/commit")
    export SCALING_COMMIT=$commit
fi
if ! "$PYTHON" -c 'import hydra, importlib.metadata as m; m.version("precision-scaling")' 2>/dev/null; then
    site=$(mktemp -d)
    "$PYTHON" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --target "$site" \
        "$travelled"/wheels/*.whl || exit 2
    export PYTHONPATH="$PYTHONPATH:$site"
fi
if [ -f "$travelled/gpu.tar.xz" ]; then # of an earlier call
    mkdir -p "$state" && tar -xJf "$travelled/gpu.tar.xz" -C "$state" --skip-old-files || exit 2
fi

status=0
for section in "$@"; do
    name=${section%%=*}
    seconds=${section#*=}
    case $name in tests | throughput | study) ;; *) usage ;; esac
    [[ $seconds =~ ^[0-9]+$ ]] || usage
    # What hangs is ended some seconds behind its time; what was measured is on disk by then.
    timeout -s TERM -k 10 $((seconds + 20)) "$PYTHON" -m bench.gpu "$name" --seconds "$seconds" --out "$state" --outgoing "$outgoing" \
        --device "${DEVICE:-cuda}" ${TINY:+--tiny}
    found=$?
    case $found in 124 | 130 | 137 | 143) found=3 ;; esac # ended by the line above
    echo "bench/gpu.sh: $name: $(case $found in 0) echo complete ;; 3) echo "time ran out; call again to go on" ;; *) echo "status $found" ;; esac)"
    [ $found -eq 0 ] || status=$found
done
exit $status
