#!/usr/bin/env bash
# Fuzzes what reads the input of strangers; fuzz/README.md says what each target checks.
#
#   tools/fuzz.sh                 ten minutes for each target, side by side
#   tools/fuzz.sh --smoke         five seconds for each
#   tools/fuzz.sh --seconds N     N seconds for each
#   tools/fuzz.sh --in-turn       ten minutes for each, one after the other
#   tools/fuzz.sh TARGET FILE     one input again, with a backtrace
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/needs.sh

readonly TARGETS=(jws jwk_set claims request) OUT=$PWD/target/fuzz
seconds=600 in_turn=false
case ${1:-} in
    '') ;;
    --smoke) seconds=5 ;;
    --seconds) seconds=${2:?how many seconds?} ;;
    --in-turn) in_turn=true ;;
    -*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) target=$1 file=${2:?which file?} ;;
esac

if ! has c++; then
    echo "NOT CHECKED: fuzzing; a C++ compiler is missing (Debian: apt-get install g++)"
    [ "${CI:-}" != true ]
    exit
fi

# Coverage by the flags of the stable compiler; only for what runs in the end, so not without --target.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
CARGO_TARGET_DIR=$OUT/build RUSTFLAGS=$flags cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --target "$host"
readonly PROGRAMS=$OUT/build/$host/release

if [ -n "${target:-}" ]; then exec env RUST_BACKTRACE=1 "$PROGRAMS/$target" "$file"; fi

mkdir -p "$OUT/findings"
pids=()
trap '[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true' EXIT
for target in "${TARGETS[@]}"; do
    mkdir -p "$OUT/corpus/$target" "$OUT/seeds/$target"
    DOORWARD_FUZZ_SEEDS=$OUT/seeds/$target nice "$PROGRAMS/$target" "$OUT/corpus/$target" "$OUT/seeds/$target" \
        -max_total_time="$seconds" -max_len=12000 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$OUT/findings/$target-" >"$OUT/$target.log" 2>&1 &
    pids+=($!)
    if $in_turn; then wait $! || true; fi
done
failed=0
for index in "${!TARGETS[@]}"; do
    target=${TARGETS[$index]}
    if wait "${pids[$index]}"; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$OUT/$target.log")
        printf '%-8s %s inputs in %s s, no finding\n' "$target" "${runs:-?}" "$seconds"
        [ "${runs:-0}" -gt 1000 ] || { echo "$target: that is not fuzzing; see $OUT/$target.log"; failed=1; }
    else
        failed=1
        tail -n 30 "$OUT/$target.log"
        echo "$target: FOUND something, see $OUT/findings; again: tools/fuzz.sh $target FILE"
    fi
done
pids=()
exit $failed
