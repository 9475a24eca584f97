// boxo-peer builds and reads IPFS content with boxo (the library inside kubo), go-car and go-ipld-prime.
// Driven by tests/peers and tests/fuzz.
//
// Takes a JSON list of jobs on standard input and prints the list of their results, all in one process. Every job
// names a verb in "do"; the files say what each takes and gives. A job that fails has the result {"error"}. Nothing
// is ever fetched: blocks come from the folder, the CAR or the job itself. Called as `boxo-peer gateway`, it serves
// boxo's gateway over a CAR instead (gateway.go).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
)

// store is what one job has of blocks, in memory.
type store struct {
	blocks  blockstore.Blockstore
	service blockservice.BlockService
	dag     ipld.DAGService
}

func newStore() store {
	blocks := blockstore.NewIdStore(blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())))
	service := blockservice.New(blocks, offline.Exchange(blocks))
	return store{blocks, service, merkledag.NewDAGService(service)}
}

type verb func(ctx context.Context, job []byte) (any, error)

// reading makes a verb of a function that takes its job decoded.
func reading[J any](run func(ctx context.Context, job J) (any, error)) verb {
	return func(ctx context.Context, raw []byte) (any, error) {
		var job J
		if err := json.Unmarshal(raw, &job); err != nil {
			return nil, err
		}
		return run(ctx, job)
	}
}

var verbs = map[string]verb{
	"import":    reading(importFolder),
	"export":    reading(exportCar),
	"directory": reading(changeDirectory),
	"resolve":   reading(resolvePaths),
	"wrap":      reading(wrapCar),
	"index":     reading(readIndex),
	"decode":    reading(decodeAll),
	"sign":      reading(signRecord),
	"validate":  reading(validateRecords),
	"select":    reading(selectRecord),
	"remote":    reading(askThroughRemote),
	"piece":     reading(commitToPiece),
	"piece-cid": reading(readPieceCids),
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "gateway" {
		if err := runGateway(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "boxo-peer:", err)
			os.Exit(1)
		}
		return
	}
	var jobs []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		fmt.Fprintln(os.Stderr, "boxo-peer: no list of jobs on standard input:", err)
		os.Exit(2)
	}
	results := make([]any, 0, len(jobs))
	for _, job := range jobs {
		done, err := run(context.Background(), job)
		if err != nil {
			done = map[string]string{"error": err.Error()}
		}
		results = append(results, done)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		fmt.Fprintln(os.Stderr, "boxo-peer:", err)
		os.Exit(1)
	}
}

func runGateway(ctx context.Context) error {
	input := json.NewDecoder(os.Stdin)
	var config gatewayConfig
	if err := input.Decode(&config); err != nil {
		return err
	}
	return serveGateway(ctx, config, os.Stdin)
}

func run(ctx context.Context, job []byte) (any, error) {
	var named struct {
		Do string `json:"do"`
	}
	if err := json.Unmarshal(job, &named); err != nil {
		return nil, err
	}
	do, known := verbs[named.Do]
	if !known {
		return nil, fmt.Errorf("unknown job %q", named.Do)
	}
	return do(ctx, job)
}
