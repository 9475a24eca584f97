package main

import (
	"context"
	"io"
	"os"

	commcid "github.com/filecoin-project/go-fil-commcid"
	commp "github.com/filecoin-project/go-fil-commp-hashhash"
	"github.com/ipfs/go-cid"
)

// {"do": "piece", "file"} → {"v1", "v2", "payload", "padded"}: Filecoin's commitment to a file.
type pieceJob struct {
	File string `json:"file"`
}

func commitToPiece(_ context.Context, job pieceJob) (any, error) {
	file, err := os.Open(job.File)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var calc commp.Calc
	payload, err := io.Copy(&calc, file)
	if err != nil {
		return nil, err
	}
	root, padded, err := calc.Digest()
	if err != nil {
		return nil, err
	}
	v1, err := commcid.DataCommitmentV1ToCID(root)
	if err != nil {
		return nil, err
	}
	done := map[string]any{"v1": v1.String(), "payload": payload, "padded": padded}
	// A piece of less than one quad has no version 2 in this library.
	if v2, err := commcid.DataCommitmentToPieceCidv2(root, uint64(payload)); err == nil {
		done["v2"] = v2.String()
	}
	return done, nil
}

// {"do": "piece-cid", "cids": […]} → {"read"}: per CID {"v1", "payload"} of a piece CID of version 2, or {"error"}.
type pieceCidJob struct {
	Cids []string `json:"cids"`
}

func readPieceCids(_ context.Context, job pieceCidJob) (any, error) {
	results := make([]any, 0, len(job.Cids))
	for _, text := range job.Cids {
		v1, payload, err := readPieceCid(text)
		if err != nil {
			results = append(results, map[string]any{"error": err.Error()})
			continue
		}
		results = append(results, map[string]any{"v1": v1.String(), "payload": payload})
	}
	return map[string]any{"read": results}, nil
}

func readPieceCid(text string) (cid.Cid, uint64, error) {
	parsed, err := cid.Decode(text)
	if err != nil {
		return cid.Undef, 0, err
	}
	return commcid.PieceCidV1FromV2(parsed)
}
