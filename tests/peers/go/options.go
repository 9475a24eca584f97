package main

import (
	"fmt"

	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-cidutil"
	mh "github.com/multiformats/go-multihash"
)

// options decide how a DAG is built: a profile's name and what differs from it.
type options struct {
	Profile       string  `json:"profile"`
	Chunker       string  `json:"chunker"` // as boxo writes it; empty is the profile's
	Layout        string  `json:"layout"`  // "trickle", else balanced
	MaxLinks      int     `json:"max_links"`
	RawLeaves     *bool   `json:"raw_leaves"`
	CidVersion    *int    `json:"cid_version"`
	Hash          string  `json:"hash"`
	InlineLimit   *int    `json:"inline_limit"` // absent: nothing is inlined
	HamtThreshold *int    `json:"hamt_threshold"`
	HamtFanout    int     `json:"hamt_fanout"`
	HamtEstimate  *string `json:"hamt_estimate"` // "links" or "block"
	Attributes    bool    `json:"attributes"`
	// How many entries a folder of one block has at most; 0 is any number.
	DirectoryLinks int `json:"directory_links"`
}

var profiles = map[string]uio.UnixFSProfile{
	"unixfs-v0-2015": uio.UnixFS_v0_2015,
	"unixfs-v1-2025": uio.UnixFS_v1_2025,
}

var estimates = map[string]uio.SizeEstimationMode{
	"links": uio.SizeEstimationLinks,
	"block": uio.SizeEstimationBlock,
}

// settings are the options with nothing left open.
type settings struct {
	uio.UnixFSProfile
	chunker    string
	trickle    bool
	builder    cid.Builder
	attributes bool
	folderMax  int
}

func (o options) settle() (settings, error) {
	profile, known := profiles[o.Profile]
	if !known {
		return settings{}, fmt.Errorf("unknown profile %q", o.Profile)
	}
	if o.MaxLinks > 0 {
		profile.FileDAGWidth = o.MaxLinks
	}
	if o.RawLeaves != nil {
		profile.RawLeaves = *o.RawLeaves
	}
	if o.CidVersion != nil {
		profile.CIDVersion = *o.CidVersion
	}
	if o.Hash != "" {
		code, known := mh.Names[o.Hash]
		if !known {
			return settings{}, fmt.Errorf("unknown hash function %q", o.Hash)
		}
		profile.MhType = code
	}
	if o.HamtThreshold != nil {
		profile.HAMTShardingSize = *o.HamtThreshold
	}
	if o.HamtFanout > 0 {
		profile.HAMTShardWidth = o.HamtFanout
	}
	if o.HamtEstimate != nil {
		profile.HAMTSizeEstimation = estimates[*o.HamtEstimate]
	}
	chunker := o.Chunker
	if chunker == "" {
		chunker = fmt.Sprintf("size-%d", profile.ChunkSize)
	}
	builder := profile.CidBuilder()
	if o.InlineLimit != nil {
		builder = cidutil.InlineBuilder{Builder: builder, Limit: *o.InlineLimit}
	}
	// boxo keeps the threshold and the width of its conversions in globals.
	uio.HAMTShardingSize = profile.HAMTShardingSize
	uio.HAMTSizeEstimation = profile.HAMTSizeEstimation
	uio.DefaultShardWidth = profile.HAMTShardWidth
	return settings{profile, chunker, o.Layout == "trickle", builder, o.Attributes, o.DirectoryLinks}, nil
}
