// boxo-peer builds and reads UnixFS with boxo, the library inside kubo, and go-car. Driven by tests/peers.
//
// Takes a JSON list of jobs on standard input and prints the list of their results, all in one process:
//
//	{"do": "import", "profile", "folder", "car", "car_version": 1|2, "attributes": bool} → {"root"}
//	{"do": "export", "car"} → {"root", "entries": [{path, type, size, sha256, target, mode, mtime}]}
//
// A job that fails has the result {"error"}. Nothing is ever fetched: blocks come from the folder or the CAR.
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

type job struct {
	Do         string `json:"do"`
	Profile    string `json:"profile"`
	Folder     string `json:"folder"`
	Car        string `json:"car"`
	CarVersion int    `json:"car_version"`
	Attributes bool   `json:"attributes"`
}

type result struct {
	Root    string  `json:"root,omitempty"`
	Entries []entry `json:"entries,omitempty"`
	Error   string  `json:"error,omitempty"`
}

func main() {
	var jobs []job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		fmt.Fprintln(os.Stderr, "boxo-peer: no list of jobs on standard input:", err)
		os.Exit(2)
	}
	results := make([]result, 0, len(jobs))
	for _, job := range jobs {
		done, err := run(context.Background(), job)
		if err != nil {
			done = result{Error: err.Error()}
		}
		results = append(results, done)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		fmt.Fprintln(os.Stderr, "boxo-peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, job job) (result, error) {
	blocks := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	dag := merkledag.NewDAGService(blockservice.New(blocks, offline.Exchange(blocks)))
	switch job.Do {
	case "import":
		return importFolder(ctx, job, dag)
	case "export":
		return exportCar(ctx, job.Car, blocks, dag)
	default:
		return result{}, fmt.Errorf("unknown job %q", job.Do)
	}
}

func importFolder(ctx context.Context, job job, dag ipld.DAGService) (result, error) {
	root, err := addFolder(ctx, job, dag)
	if err != nil {
		return result{}, err
	}
	if err := writeCar(ctx, job.Car, job.CarVersion, root.Cid(), dag); err != nil {
		return result{}, err
	}
	return result{Root: root.Cid().String()}, nil
}

func exportCar(
	ctx context.Context, car string, blocks blockstore.Blockstore, dag ipld.DAGService,
) (result, error) {
	root, err := readCar(ctx, car, blocks)
	if err != nil {
		return result{}, err
	}
	entries, err := listTree(ctx, root, dag)
	if err != nil {
		return result{}, err
	}
	return result{Root: root.String(), Entries: entries}, nil
}
