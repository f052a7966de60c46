#!/bin/sh
# Make the model that Triton will serve on this machine, unless it is there and fits: made from these
# weights with these options (kept in REPOSITORY.options), its files whole, and an engine of this
# TensorRT and this GPU. Ends with an error where no such model can be made; Triton is not started
# then.
#   sh deploy/export.sh WEIGHTS REPOSITORY [TARGET [options of python -m export]]
set -eu
weights=$1 repository=$2 target=${3:-tensorrt}
shift $(($# < 3 ? $# : 3))
manifest=$repository/dim/1/manifest.json
options=$repository.options

fits() {
    sum=$(sha256sum "$weights") || exit 2
    grep -qs "\"target\": \"$target\"" "$manifest" &&
        grep -Eq "\"(weights|checkpoint)\": \"${sum%% *}\"" "$manifest" &&
        [ "$(cat "$options" 2>/dev/null)" = "$1" ] &&
        python3 -m export check "$repository"
}

fits "$*" || {
    mkdir -p "$(dirname "$repository")"
    echo unfinished >"$options"
    python3 -m export "$weights" --target "$target" --repository "$repository" "$@"
    echo "$*" >"$options"
}
