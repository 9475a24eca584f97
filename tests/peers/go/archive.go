package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	car "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"
)

// writeCar writes the whole DAG, parents before children, each block once.
func writeCar(ctx context.Context, path string, version int, root cid.Cid, dag ipld.DAGService) error {
	if version != 1 && version != 2 {
		return fmt.Errorf("no CAR version %d", version)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	// Whole CIDs: a raw block and a dag-pb block of the same bytes are two entries.
	archive, err := storage.NewWritable(
		file, []cid.Cid{root}, car.WriteAsCarV1(version == 1), car.UseWholeCIDs(true),
	)
	if err != nil {
		return err
	}
	seen := cid.NewSet()
	var visit func(cid.Cid) error
	visit = func(at cid.Cid) error {
		if !seen.Visit(at) {
			return nil
		}
		node, err := dag.Get(ctx, at)
		if err != nil {
			return err
		}
		if err := archive.Put(ctx, at.KeyString(), node.RawData()); err != nil {
			return err
		}
		for _, link := range node.Links() {
			if err := visit(link.Cid); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit(root); err != nil {
		return err
	}
	if err := archive.Finalize(); err != nil {
		return err
	}
	return file.Close()
}

// readCar puts every block into the store, hashes verified, and returns the only root.
func readCar(ctx context.Context, path string, blocks blockstore.Blockstore) (cid.Cid, error) {
	file, err := os.Open(path)
	if err != nil {
		return cid.Undef, err
	}
	defer file.Close()
	reader, err := car.NewBlockReader(file)
	if err != nil {
		return cid.Undef, err
	}
	if len(reader.Roots) != 1 {
		return cid.Undef, fmt.Errorf("%d roots, not one", len(reader.Roots))
	}
	for {
		block, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return reader.Roots[0], nil
		}
		if err != nil {
			return cid.Undef, err
		}
		if err := blocks.Put(ctx, block); err != nil {
			return cid.Undef, err
		}
	}
}
