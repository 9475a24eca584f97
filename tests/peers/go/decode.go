package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	car "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/index"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/codec"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multibase"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// {"do": "decode", "as": a kind below, "to": "" or another codec, "inputs": [bytes]}
// → {"verdicts": [{"ok", "again": the bytes it encodes to, "error"}]}
type decodeJob struct {
	As     string   `json:"as"`
	To     string   `json:"to"`
	Inputs [][]byte `json:"inputs"`
}

type verdict struct {
	OK    bool   `json:"ok"`
	Again []byte `json:"again,omitempty"`
	Error string `json:"error,omitempty"`
}

type decoder func(raw []byte) (again []byte, err error)

// What takes bytes and gives what they encode to again; text comes as its bytes.
var decoders = map[string]decoder{
	"varint":      decodeVarint,
	"multihash":   decodeMultihash,
	"multibase":   decodeMultibase,
	"cid":         decodeCid,
	"cid-text":    decodeCidText,
	"unixfs":      decodeUnixfs,
	"ipns-record": decodeRecord,
	"car":         decodeCar,
	"car-index":   decodeIndex,
}

type ipldCodec struct {
	decode codec.Decoder
	encode codec.Encoder
}

var ipldCodecs = map[string]ipldCodec{
	"dag-cbor": {dagcbor.DecodeOptions{AllowLinks: true}.Decode, dagcbor.Encode},
	"dag-json": {dagjson.Decode, dagjson.Encode},
}

func decodeAll(_ context.Context, job decodeJob) (any, error) {
	decode, known := decoders[job.As]
	if job.As == "dag-pb" {
		decode, known = decodeDagPB, true
	} else if from, ok := ipldCodecs[job.As]; ok {
		to, ok := ipldCodecs[job.To]
		if job.To == "" {
			to, ok = from, true
		}
		decode, known = func(raw []byte) ([]byte, error) { return transcode(raw, from, to) }, ok
	}
	if !known {
		return nil, fmt.Errorf("cannot decode %q to %q", job.As, job.To)
	}
	verdicts := make([]verdict, 0, len(job.Inputs))
	for _, raw := range job.Inputs {
		verdicts = append(verdicts, judge(decode, raw))
	}
	return map[string][]verdict{"verdicts": verdicts}, nil
}

// judge keeps a panic of one input from ending the process.
func judge(decode decoder, raw []byte) (found verdict) {
	defer func() {
		if cause := recover(); cause != nil {
			found = verdict{Error: fmt.Sprint("panic: ", cause)}
		}
	}()
	again, err := decode(raw)
	if err != nil {
		return verdict{Error: err.Error()}
	}
	return verdict{OK: true, Again: again}
}

func transcode(raw []byte, from, to ipldCodec) ([]byte, error) {
	builder := basicnode.Prototype.Any.NewBuilder()
	if err := from.decode(builder, bytes.NewReader(raw)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err := to.encode(builder.Build(), &out)
	return out.Bytes(), err
}

func decodeDagPB(raw []byte) ([]byte, error) {
	builder := dagpb.Type.PBNode.NewBuilder()
	if err := dagpb.DecodeBytes(builder, raw); err != nil {
		return nil, err
	}
	return dagpb.AppendEncode(nil, datamodel.Node(builder.Build()))
}

func decodeVarint(raw []byte) ([]byte, error) {
	value, size, err := varint.FromUvarint(raw)
	if err != nil {
		return nil, err
	}
	if size != len(raw) {
		return nil, errors.New("bytes after the varint")
	}
	return varint.ToUvarint(value), nil
}

func decodeMultihash(raw []byte) ([]byte, error) {
	decoded, err := mh.Decode(raw)
	if err != nil {
		return nil, err
	}
	return mh.Encode(decoded.Digest, decoded.Code)
}

func decodeMultibase(raw []byte) ([]byte, error) {
	_, content, err := multibase.Decode(string(raw))
	return content, err
}

func decodeCid(raw []byte) ([]byte, error) {
	found, err := cid.Cast(raw)
	return found.Bytes(), err
}

func decodeCidText(raw []byte) ([]byte, error) {
	found, err := cid.Decode(string(raw))
	return found.Bytes(), err
}

func decodeUnixfs(raw []byte) ([]byte, error) {
	node, err := unixfs.FSNodeFromBytes(raw)
	if err != nil {
		return nil, err
	}
	return node.GetBytes()
}

// decodeCar gives the CIDs of the blocks, one after the other.
func decodeCar(raw []byte) ([]byte, error) {
	reader, err := car.NewBlockReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		block, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, block.Cid().Bytes()...)
	}
}

func decodeIndex(raw []byte) ([]byte, error) {
	table, err := index.ReadFrom(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = index.WriteTo(table, &out)
	return out.Bytes(), err
}
