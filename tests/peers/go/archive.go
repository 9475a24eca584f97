package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	car "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/index"
	"github.com/ipld/go-car/v2/storage"
	"github.com/multiformats/go-multicodec"
	mh "github.com/multiformats/go-multihash"
)

var indexCodecs = map[string]multicodec.Code{
	"sorted":           multicodec.CarIndexSorted,
	"multihash-sorted": multicodec.CarMultihashIndexSorted,
}

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

// {"do": "wrap", "from": a CARv1, "to": path of the CARv2, "index": "sorted"|"multihash-sorted", "identity": bool} → {}
type wrapJob struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Index    string `json:"index"`
	Identity bool   `json:"identity"`
}

func wrapCar(_ context.Context, job wrapJob) (any, error) {
	codec, known := indexCodecs[job.Index]
	if !known {
		return nil, fmt.Errorf("unknown index %q", job.Index)
	}
	from, err := os.Open(job.From)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := os.Create(job.To)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	if err := car.WrapV1(from, to, car.UseIndexCodec(codec), car.StoreIdentityCIDs(job.Identity)); err != nil {
		return nil, err
	}
	return struct{}{}, to.Close()
}

// {"do": "index", "car": a CARv2} → {"kind", "entries": [[multihash in hexadecimal, offset]], "blocks": how many of
// the CAR's blocks its index finds, "inspected": what go-car's own inspection counts}
type indexJob struct {
	Car string `json:"car"`
}

type indexResult struct {
	Kind      string   `json:"kind"`
	Entries   [][2]any `json:"entries"`
	Found     int      `json:"found"`
	Inspected uint64   `json:"inspected"`
}

func readIndex(_ context.Context, job indexJob) (any, error) {
	reader, err := car.OpenReader(job.Car)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	stats, err := reader.Inspect(true)
	if err != nil {
		return nil, err
	}
	stream, err := reader.IndexReader()
	if err != nil {
		return nil, err
	}
	if stream == nil {
		return nil, errors.New("no index")
	}
	table, err := index.ReadFrom(stream)
	if err != nil {
		return nil, err
	}
	result := indexResult{Kind: table.Codec().String(), Entries: [][2]any{}, Inspected: stats.BlockCount}
	if iterable, ok := table.(index.IterableIndex); ok {
		err := iterable.ForEach(func(hash mh.Multihash, offset uint64) error {
			result.Entries = append(result.Entries, [2]any{hash.HexString(), offset})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	result.Found, err = found(reader, table)
	return result, err
}

// found counts the blocks that stand where the index says, and fails if one does not.
func found(reader *car.Reader, table index.Index) (int, error) {
	data, err := reader.DataReader()
	if err != nil {
		return 0, err
	}
	whole, err := io.ReadAll(data)
	if err != nil {
		return 0, err
	}
	blocks, err := car.NewBlockReader(bytes.NewReader(whole))
	if err != nil {
		return 0, err
	}
	count := 0
	for {
		block, err := blocks.SkipNext()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return 0, err
		}
		if block.Cid.Prefix().MhType == mh.IDENTITY {
			continue
		}
		there := false
		if err := table.GetAll(block.Cid, func(offset uint64) bool {
			there = there || offset == block.Offset
			return true
		}); err != nil {
			return 0, fmt.Errorf("%s: %w", block.Cid, err)
		}
		if !there {
			return 0, fmt.Errorf("the index does not say where %s is", block.Cid)
		}
		count++
	}
}
