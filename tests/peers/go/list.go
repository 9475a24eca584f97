package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"

	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// {"do": "export", "car"} → {"root", "entries": [{path, type, size, sha256, target, mode, mtime}]}
type exportJob struct {
	Car string `json:"car"`
}

func exportCar(ctx context.Context, job exportJob) (any, error) {
	store := newStore()
	root, err := readCar(ctx, job.Car, store.blocks)
	if err != nil {
		return nil, err
	}
	entries, err := listTree(ctx, root, store.dag)
	if err != nil {
		return nil, err
	}
	return map[string]any{"root": root.String(), "entries": entries}, nil
}

// entry is a file, directory or symlink; a path is relative to the root, whose own path is empty.
type entry struct {
	Path   string `json:"path"`
	Type   string `json:"type"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Target string `json:"target"`
	Mode   uint32 `json:"mode"`  // 0 where the node has none
	Mtime  string `json:"mtime"` // "seconds.nanoseconds", empty where the node has none
}

// listTree reads everything below the root, files in full.
func listTree(ctx context.Context, root cid.Cid, dag ipld.DAGService) ([]entry, error) {
	node, err := dag.Get(ctx, root)
	if err != nil {
		return nil, err
	}
	top, err := unixfile.NewUnixfsFile(ctx, dag, node)
	if err != nil {
		return nil, err
	}
	var entries []entry
	err = list("", top, &entries)
	return entries, err
}

func list(at string, node files.Node, entries *[]entry) error {
	defer node.Close()
	found := entry{Path: at, Mode: files.ModePermsToUnixPerms(node.Mode())}
	if mtime := node.ModTime(); !mtime.IsZero() {
		found.Mtime = fmt.Sprintf("%d.%09d", mtime.Unix(), mtime.Nanosecond())
	}
	switch node := node.(type) {
	case *files.Symlink:
		found.Type, found.Target, found.Mode = "symlink", node.Target, 0
	case files.Directory:
		found.Type = "directory"
		*entries = append(*entries, found)
		children := node.Entries()
		for children.Next() {
			if err := list(path.Join(at, children.Name()), children.Node(), entries); err != nil {
				return err
			}
		}
		return children.Err()
	case files.File:
		hash := sha256.New()
		size, err := io.Copy(hash, node)
		if err != nil {
			return err
		}
		found.Type, found.Size, found.SHA256 = "file", size, hex.EncodeToString(hash.Sum(nil))
	default:
		return fmt.Errorf("%s is a %T", at, node)
	}
	*entries = append(*entries, found)
	return nil
}
