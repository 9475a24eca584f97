package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	ipld "github.com/ipfs/go-ipld-format"
)

var profiles = map[string]uio.UnixFSProfile{
	"unixfs-v0-2015": uio.UnixFS_v0_2015,
	"unixfs-v1-2025": uio.UnixFS_v1_2025,
}

// adder builds UnixFS nodes, children before parents.
type adder struct {
	profile    uio.UnixFSProfile
	dag        ipld.DAGService
	attributes bool
}

func addFolder(ctx context.Context, job job, dag ipld.DAGService) (ipld.Node, error) {
	profile, known := profiles[job.Profile]
	if !known {
		return nil, fmt.Errorf("unknown profile %q", job.Profile)
	}
	profile.ApplyGlobals()
	status, err := os.Lstat(job.Folder)
	if err != nil {
		return nil, err
	}
	top, err := files.NewSerialFile(job.Folder, true, status)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	return (&adder{profile, dag, job.Attributes}).add(ctx, top)
}

func (a *adder) add(ctx context.Context, node files.Node) (ipld.Node, error) {
	switch node := node.(type) {
	case *files.Symlink:
		return a.addSymlink(ctx, node)
	case files.Directory:
		return a.addDirectory(ctx, node)
	case files.File:
		return a.addFile(node)
	default:
		return nil, fmt.Errorf("cannot add a %T", node)
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
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	mode, mtime := a.stat(file)
	params := helpers.DagBuilderParams{
		Dagserv:    a.dag,
		Maxlinks:   a.profile.FileDAGWidth,
		CidBuilder: a.profile.CidBuilder(),
		// A raw block has no room for attributes: a file of one chunk that has some is a dag-pb node.
		RawLeaves:   a.profile.RawLeaves && !(a.attributes && size <= a.profile.ChunkSize),
		FileMode:    mode,
		FileModTime: mtime,
	}
	builder, err := params.New(chunk.NewSizeSplitter(file, a.profile.ChunkSize))
	if err != nil {
		return nil, err
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
	if err := node.SetCidBuilder(a.profile.CidBuilder()); err != nil {
		return nil, err
	}
	return node, a.dag.Add(ctx, node)
}

func (a *adder) addDirectory(ctx context.Context, folder files.Directory) (ipld.Node, error) {
	mode, mtime := a.stat(folder)
	directory, err := uio.NewDirectory(
		a.dag, uio.WithCidBuilder(a.profile.CidBuilder()), uio.WithStat(mode, mtime),
	)
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
