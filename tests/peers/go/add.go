package main

import (
	"context"
	"os"
	"time"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	ipld "github.com/ipfs/go-ipld-format"
)

// {"do": "import", "folder", options…, "car", "car_version": 1|2} → {"root"}; without "car" none is written.
type importJob struct {
	options
	Folder     string `json:"folder"`
	Car        string `json:"car"`
	CarVersion int    `json:"car_version"`
}

func importFolder(ctx context.Context, job importJob) (any, error) {
	settings, err := job.settle()
	if err != nil {
		return nil, err
	}
	store := newStore()
	root, err := (&adder{settings, store.dag}).addPath(ctx, job.Folder)
	if err != nil {
		return nil, err
	}
	if job.Car != "" {
		if err := writeCar(ctx, job.Car, job.CarVersion, root.Cid(), store.dag); err != nil {
			return nil, err
		}
	}
	return map[string]string{"root": root.Cid().String()}, nil
}

// adder builds UnixFS nodes, children before parents.
type adder struct {
	settings
	dag ipld.DAGService
}

func (a *adder) addPath(ctx context.Context, path string) (ipld.Node, error) {
	status, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	top, err := files.NewSerialFile(path, true, status)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	return a.add(ctx, top)
}

func (a *adder) add(ctx context.Context, node files.Node) (ipld.Node, error) {
	switch node := node.(type) {
	case *files.Symlink:
		return a.addSymlink(ctx, node)
	case files.Directory:
		return a.addDirectory(ctx, node)
	default:
		return a.addFile(files.ToFile(node))
	}
}

// stat gives the zero values, which boxo leaves out of a node, unless attributes were asked for.
func (a *adder) stat(node files.Node) (os.FileMode, time.Time) {
	if !a.attributes {
		return 0, time.Time{}
	}
	return node.Mode(), node.ModTime()
}

func (a *adder) addFile(file files.File) (ipld.Node, error) {
	rawLeaves := a.RawLeaves
	if a.attributes && !a.trickle {
		size, err := file.Size()
		if err != nil {
			return nil, err
		}
		// A raw block has no room for attributes: a file of one chunk that has some is a dag-pb node.
		rawLeaves = rawLeaves && size > a.ChunkSize
	}
	mode, mtime := a.stat(file)
	params := helpers.DagBuilderParams{
		Dagserv:     a.dag,
		Maxlinks:    a.FileDAGWidth,
		CidBuilder:  a.builder,
		RawLeaves:   rawLeaves,
		FileMode:    mode,
		FileModTime: mtime,
	}
	splitter, err := chunk.FromString(file, a.chunker)
	if err != nil {
		return nil, err
	}
	builder, err := params.New(splitter)
	if err != nil {
		return nil, err
	}
	if a.trickle {
		return trickle.Layout(builder)
	}
	return balanced.Layout(builder)
}

// addSymlink keeps the time and no mode, as kubo does: a symlink has no mode of its own.
func (a *adder) addSymlink(ctx context.Context, link *files.Symlink) (ipld.Node, error) {
	data, err := unixfs.SymlinkData(link.Target)
	if err != nil {
		return nil, err
	}
	if _, mtime := a.stat(link); !mtime.IsZero() {
		message, err := unixfs.FSNodeFromBytes(data)
		if err != nil {
			return nil, err
		}
		message.SetModTime(mtime)
		if data, err = message.GetBytes(); err != nil {
			return nil, err
		}
	}
	node := merkledag.NodeWithData(data)
	if err := node.SetCidBuilder(a.builder); err != nil {
		return nil, err
	}
	return node, a.dag.Add(ctx, node)
}

// newDirectory is empty and becomes a HAMT by itself.
func (a *adder) newDirectory(mode os.FileMode, mtime time.Time) (uio.Directory, error) {
	return uio.NewDirectory(
		a.dag, uio.WithCidBuilder(a.builder), uio.WithStat(mode, mtime),
		uio.WithMaxHAMTFanout(a.HAMTShardWidth), uio.WithSizeEstimationMode(a.HAMTSizeEstimation),
		uio.WithMaxLinks(a.folderMax),
	)
}

func (a *adder) addDirectory(ctx context.Context, folder files.Directory) (ipld.Node, error) {
	directory, err := a.newDirectory(a.stat(folder))
	if err != nil {
		return nil, err
	}
	entries := folder.Entries()
	for entries.Next() {
		child, err := a.add(ctx, entries.Node())
		if err != nil {
			return nil, err
		}
		if err := entries.Node().Close(); err != nil {
			return nil, err
		}
		if err := directory.AddChild(ctx, entries.Name(), child); err != nil {
			return nil, err
		}
	}
	if err := entries.Err(); err != nil {
		return nil, err
	}
	node, err := directory.GetNode()
	if err != nil {
		return nil, err
	}
	return node, a.dag.Add(ctx, node)
}

// {"do": "directory", options…, "steps": [["add", NAME, CONTENT] | ["rm", NAME]]} → {"roots": the root after each}
//
// The directory is read anew before every step, as by a program that makes one change and ends: within its lifetime
// boxo counts the growth since it became a HAMT, so that when it is flat again depends on what was done before.
type directoryJob struct {
	options
	Steps [][]string `json:"steps"`
}

func changeDirectory(ctx context.Context, job directoryJob) (any, error) {
	settings, err := job.settle()
	if err != nil {
		return nil, err
	}
	adder := &adder{settings, newStore().dag}
	directory, err := adder.newDirectory(0, time.Time{})
	if err != nil {
		return nil, err
	}
	roots := make([]string, 0, len(job.Steps))
	for _, step := range job.Steps {
		if err := adder.change(ctx, directory, step); err != nil {
			return nil, err
		}
		node, err := directory.GetNode()
		if err != nil {
			return nil, err
		}
		roots = append(roots, node.Cid().String())
		if directory, err = adder.reopen(ctx, node); err != nil {
			return nil, err
		}
	}
	return map[string][]string{"roots": roots}, nil
}

func (a *adder) change(ctx context.Context, directory uio.Directory, step []string) error {
	if step[0] == "rm" {
		return directory.RemoveChild(ctx, step[1])
	}
	node, err := a.addFile(files.NewBytesFile([]byte(step[2])))
	if err != nil {
		return err
	}
	return directory.AddChild(ctx, step[1], node)
}

func (a *adder) reopen(ctx context.Context, node ipld.Node) (uio.Directory, error) {
	if err := a.dag.Add(ctx, node); err != nil {
		return nil, err
	}
	directory, err := uio.NewDirectoryFromNode(a.dag, node)
	if err != nil {
		return nil, err
	}
	directory.SetCidBuilder(a.builder)
	directory.SetMaxHAMTFanout(a.HAMTShardWidth)
	directory.SetSizeEstimationMode(a.HAMTSizeEstimation)
	return directory, nil
}
